"""Rounds over nodes that answer late, in part, wrongly or not at all, on a grid of our own."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from common.errors import UserError
from fal.client import Update
from fal.states import ClientStates, ServerState
from tests.fal.small import apart, federation, optimiser, trained

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from flwr.app import Error, Message, MessageType
from flwr.supercore.task_identity import TaskIdentity

from fal.flower.config import EngineConfig, held_by
from fal.flower.messages import Card, Order, of_updates, refusal
from fal.flower.remote import Remote

pytestmark = pytest.mark.flower
CARD = Card("settings", "code", [0, 1, 2, 3])
Fault = Callable[[int, Message], Message | None]


class Nodes:
    """A grid whose nodes train at once; `fault` says what becomes of an answer (node, message)."""

    def __init__(self, nodes: int = 2, fault: Fault | None = None, card: Card = CARD, **settings: Any) -> None:
        self.own = {10 + node: held_by(node, nodes, 4) for node in range(nodes)}
        self.federation = federation(stack=False, **settings)
        self.fault, self.card, self.now = fault, card, 0.0
        self.there: Callable[[], Iterable[int]] = lambda: self.own
        self.sent: list[tuple[int, str, list[int]]] = []
        self.ready: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.there())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self.push(message) for message in messages]

    def push(self, message: Message) -> str:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        name = f"message {len(self.sent)}"
        message.metadata.__dict__["_message_id"] = name
        clients = Order.of(message.content, torch.device("cpu")).clients if kind == MessageType.TRAIN else []
        self.sent.append((node, kind, clients))
        answer: Message | None = Message(replace(self.card, clients=self.own[node]).record(), reply_to=message)
        if kind == MessageType.TRAIN:
            answer = Message(of_updates(self.trained(message).items()), reply_to=message)
            answer = self.fault(node, answer) if self.fault else answer
        if answer is not None:
            self.ready[name] = answer
        return name

    def trained(self, message: Message) -> dict[int, Update]:
        order, own = Order.of(message.content, torch.device("cpu")), self.federation
        own.server = ServerState(order.start.weights, order.start.buffers, order.start.variate)
        own.states = ClientStates(dict(order.variates))
        works = {client: own.work(own.clients[client], order.round) for client in order.clients}
        return dict(own.train({client: work for client, work in works.items() if work is not None}, order.round))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.ready.pop(name) for name in message_ids if name in self.ready]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def remote(self, minimum: int = 0, patience: int = 2, card: Card = CARD) -> Remote:
        engine = EngineConfig(round_seconds=10.0, poll_seconds=1.0)
        return Remote(self, engine, card, minimum, patience, lambda: self.now, self.sleep)

    def rounds(self, number: int = 1, minimum: int = 0, patience: int = 2, **settings: Any) -> Any:
        found = federation(stack=False, **settings)
        found.remote = self.remote(minimum, patience)
        return trained(found, number)


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower's own process for the server tells every message."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def lost(*nodes: int) -> Fault:
    return lambda node, answer: None if node in nodes else answer


@pytest.mark.parametrize("settings", [{}, {"optimised": optimiser("scaffold")}, {"kind": "bn", "participation": 0.5}])
def test_rounds_over_nodes_give_the_bits_of_rounds_in_process(settings: dict[str, Any]) -> None:
    nodes = Nodes(**settings)
    assert apart(nodes.rounds(3, **settings), trained(federation(stack=False, **settings), 3)) == 0


def test_nodes_say_who_they_are_once_and_get_their_own_clients_alone() -> None:
    nodes = Nodes()
    nodes.rounds(2)
    assert nodes.sent == [
        (10, "query", []), (11, "query", []),
        *[(10, "train", [0, 2]), (11, "train", [1, 3])] * 2,
    ]  # fmt: skip


def test_with_every_answer_missing_the_run_stops_and_names_the_clients() -> None:
    nodes = Nodes(fault=lost(10, 11))
    with pytest.raises(UserError, match=r"round 1 has 0 updates of the 4 .* after 3 tries .* client 0, client 1"):
        nodes.rounds()
    assert [kind for _, kind, _ in nodes.sent].count("train") == 2 * 3
    assert nodes.now >= 3 * 10


def test_a_part_of_the_answers_is_no_round_and_only_what_is_missing_is_asked_again() -> None:
    times: list[int] = []

    def fault(node: int, answer: Message) -> Message | None:
        times.append(node)
        return None if node == 11 and times.count(11) == 1 else answer

    nodes = Nodes(fault=fault)
    assert apart(nodes.rounds(), trained(federation(stack=False), 1)) == 0
    assert nodes.sent[2:] == [(10, "train", [0, 2]), (11, "train", [1, 3]), (11, "train", [1, 3])]


def test_a_node_that_never_came_is_told_apart_from_one_that_does_not_answer() -> None:
    nodes = Nodes(fault=lost(10))
    nodes.there = lambda: [10]
    with pytest.raises(UserError, match=r"client 0, client 1 \(no node with it has come\), client 2, .*--insecure"):
        nodes.rounds()
    with pytest.raises(UserError) as error:
        Nodes(fault=lost(10)).rounds()
    assert "--insecure" not in str(error.value)


def test_fewer_updates_are_a_round_where_the_minimum_says_so() -> None:
    found = federation(stack=False)
    found.remote = Nodes(fault=lost(11)).remote(minimum=2)
    assert found.round(1).clients == 2
    found.remote = Nodes(fault=lost(11)).remote(minimum=3)
    with pytest.raises(UserError, match="2 updates of the 3"):
        found.round(2)


def test_an_answer_to_an_earlier_try_counts() -> None:
    nodes = Nodes()
    late: list[Message] = []

    def fault(node: int, answer: Message) -> Message | None:
        if node == 11 and not late:
            late.append(answer)
            return None
        if node == 11:
            nodes.ready[late[0].metadata.reply_to_message_id] = late[0]  # the first comes, the second never does
            return None
        return answer

    nodes.fault = fault
    assert apart(nodes.rounds(), trained(federation(stack=False), 1)) == 0


def test_a_node_that_is_away_is_waited_for() -> None:
    nodes = Nodes()
    nodes.there = lambda: [10, 11] if nodes.now > 15 else [10]
    assert apart(nodes.rounds(), trained(federation(stack=False), 1)) == 0


def test_an_error_is_part_of_the_message() -> None:
    nodes = Nodes()
    push = nodes.push

    def pushed(message: Message) -> str:
        name = push(message)
        if (
            name in nodes.ready
            and message.metadata.message_type == MessageType.TRAIN
            and message.metadata.dst_node_id == 11
        ):
            nodes.ready[name] = Message(Error(8, "killed for memory"), reply_to=message)
        return name

    nodes.push = pushed  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"client 1 \(killed for memory\), client 3 \(killed for memory\)"):
        nodes.rounds()


@pytest.mark.parametrize("key, word", [("settings", "another configuration"), ("code", "another version of the code")])
def test_a_node_with_other_settings_or_other_code_is_refused_by_name(key: str, word: str) -> None:
    nodes = Nodes(card=replace(CARD, **{key: "else"}))
    with pytest.raises(UserError, match=rf"node 10 \(clients 0, 2\) has {word} \(else\) than the server \({key}\)"):
        nodes.rounds()


def test_a_node_that_cannot_work_says_why() -> None:
    nodes = Nodes()
    work = nodes.push

    def push(message: Message) -> str:
        name = work(message)
        nodes.ready[name] = Message(refusal(UserError("data.root=/there: no such folder")), reply_to=message)
        return name

    nodes.push = push  # type: ignore[method-assign]
    with pytest.raises(UserError, match="node 10: data.root=/there: no such folder"):
        nodes.rounds()


@pytest.mark.parametrize(
    "what, told",
    [
        ("nan", "client 1 is not finite"),
        ("shape", r"client 1 \S+ has shape \[\d+\] in place of"),
        ("dtype", r"client 1 \S+ has type torch.float32 in place of torch.float64"),
        ("names", r"client 1 has other names than the network: \S+, else"),
        ("buffers", "client 1 has other names than the network"),
    ],
)
def test_an_update_that_cannot_be_used_is_left_out_and_named(
    what: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(kind="bn")
    train = nodes.trained

    def trained_wrong(message: Message) -> dict[int, Update]:
        found = train(message)
        if 1 in found:
            delta, buffers = dict(found[1].delta), dict(found[1].buffers)
            name = next(iter(delta))
            if what == "nan":
                delta[name] = delta[name] * float("nan")
            elif what == "shape":
                delta[name] = delta[name].flatten()
            elif what == "dtype":
                delta[name] = delta[name].float()
            elif what == "names":
                delta["else"] = delta.pop(name)
            else:
                buffers.popitem()
            found[1] = replace(found[1], delta=delta, buffers=buffers)
        return found

    nodes.trained = trained_wrong  # type: ignore[method-assign]
    found = federation(stack=False, kind="bn")
    found.remote = nodes.remote()
    assert list(found.round(1).left_out) == [1]
    assert re.search(told, caplog.text)
