"""The server's side of a round: work goes out to nodes, and comes back whole or again.

A client's work is a function of round, number and global weights, so that any answer to it counts, however late and
whichever of several tries it belongs to. Flower's own strategies go on with whatever has come, or with nothing.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import Message, MessageType

from common.errors import UserError
from fal.client import Global, Update, Work
from fal.flower.config import EngineConfig
from fal.flower.messages import Card, Order, refused, updates_in

log = logging.getLogger(__name__)
SHOWN = 20
"""Clients that a message names."""
AWAY = "no node with it has come"
"""What is known of a client before its node is."""
DOOR = (
    "a node whose log repeats `Connection attempt failed` and gives no reason goes to another address or port, or "
    "without TLS (--insecure)"
)


class Grid(Protocol):
    """What is used of Flower's."""

    def get_node_ids(self) -> Iterable[int]:
        """Of the nodes that are there now."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; returns the messages' numbers."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Those answers that have come, each once."""


@dataclass
class Remote:
    """Trains clients on the nodes of a grid."""

    grid: Grid
    engine: EngineConfig
    card: Card
    """The server's, with all clients."""
    minimum: int
    """Updates that a round needs; 0: of every client that was chosen."""
    patience: int
    """How often a round is tried again."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    nodes: dict[int, list[int]] = field(default_factory=dict)
    """Node -> its clients, of every node that has been asked."""

    def __call__(self, start: Global, works: Mapping[int, Work], number: int) -> dict[int, Update]:
        """The updates of the clients, trained from `start`; of fewer, where that is enough.

        Raises:
            UserError: too few came in every try; or a node cannot work.
        """
        found: dict[int, Update] = {}
        waiting: dict[str, int] = {}
        why: dict[int, str] = {}
        wanted = min(self.minimum or len(works), len(works))
        for attempt in range(1 + self.patience):
            end = self.clock() + self.engine.round_seconds
            missing = {client: work for client, work in works.items() if client not in found}
            self.send(start, missing, number, waiting, end)
            while waiting and len(found) < len(works) and self.clock() < end:
                self.receive(waiting, start, works.keys(), found, why)
            if len(found) >= wanted:
                return {client: found[client] for client in works if client in found}
            lacking = self.named(works.keys() - found.keys(), why)
            log.warning("round %d, try %d of %d: no update of %s", number, attempt + 1, 1 + self.patience, lacking)
        strangers = f"; {DOOR}" if AWAY in lacking else ""
        raise UserError(
            f"round {number} has {len(found)} updates of the {wanted} it needs after {1 + self.patience} tries of "
            f"engine.round_seconds={self.engine.round_seconds:g}: none of {lacking}; start their nodes and give the "
            "same command again, which continues with this round, or set federation.minimum or federation.patience"
            f"{strangers}"
        )

    def send(self, start: Global, works: Mapping[int, Work], number: int, waiting: dict[str, int], end: float) -> None:
        """Give the clients' nodes their work, waiting until all of them are there, but not beyond `end`."""
        messages = []
        for node, clients in self.located(works.keys(), end).items():
            order = Order(number, clients, start, {client: works[client].variate for client in clients})
            messages.append(Message(order.record(), node, MessageType.TRAIN, group_id=str(number)))
        waiting.update(self.push(messages))

    def located(self, clients: Collection[int], end: float) -> dict[int, list[int]]:
        """Node -> which of the `clients` it has. Those whose nodes are not there at `end` are left out.

        Raises:
            UserError: a node cannot work.
        """
        while True:
            there = set(self.grid.get_node_ids())
            self.ask(there - self.nodes.keys(), end)
            found = {node: [c for c in self.nodes[node] if c in clients] for node in sorted(there & self.nodes.keys())}
            found = {node: own for node, own in found.items() if own}
            if sum(map(len, found.values())) == len(clients) or self.clock() >= end:
                return found
            self.sleep(self.engine.poll_seconds)

    def ask(self, nodes: Collection[int], end: float) -> None:
        """Get the cards of nodes that are new."""
        waiting = self.push([Message(self.card.record(), node, MessageType.QUERY) for node in sorted(nodes)])
        while waiting and self.clock() < end:
            for node, answer in self.answers(waiting):
                if answer.has_error():
                    log.warning("node %d does not say who it is (%s)", node, answer.error.reason)
                    continue
                card = Card.of(answer.content)
                self.card.check(card, self.node(node, card.clients))
                for own in self.nodes.values():  # of a node that came back under another number
                    own[:] = [client for client in own if client not in card.clients]
                self.nodes[node] = card.clients

    def receive(
        self, waiting: dict[str, int], start: Global, clients: Collection[int], found: dict[int, Update],
        why: dict[int, str],
    ) -> None:  # fmt: skip
        """Take what has come."""
        device = next(iter(start.weights.values())).device
        for node, answer in self.answers(waiting):
            own = [client for client in self.nodes[node] if client in clients]
            if answer.has_error():
                why.update(dict.fromkeys(own, answer.error.reason))
            else:
                found.update(updates_in(answer.content, own, device))

    def push(self, messages: list[Message]) -> dict[str, int]:
        """Send; returns message -> node of those that the SuperLink took."""
        sent = self.grid.push_messages(messages) if messages else []
        return {name: message.metadata.dst_node_id for name, message in zip(sent, messages, strict=True) if name}

    def answers(self, waiting: dict[str, int]) -> list[tuple[int, Message]]:
        """Those that have come, with their nodes, taken off what waits; after a pause if there is none.

        Raises:
            UserError: a node refuses to work.
        """
        answers = list(self.grid.pull_messages(list(waiting)))
        found = [(waiting.pop(answer.metadata.reply_to_message_id), answer) for answer in answers]
        for node, answer in found:
            if not answer.has_error() and (reason := refused(answer.content)):
                raise UserError(f"{self.node(node)}: {reason}")
        if not found:
            self.sleep(self.engine.poll_seconds)
        return found

    def node(self, node: int, clients: Collection[int] = ()) -> str:
        """A node in words."""
        own = sorted(clients or self.nodes.get(node, []))
        return f"node {node} (clients {', '.join(map(str, own[:SHOWN]))})" if own else f"node {node}"

    def named(self, clients: AbstractSet[int], why: Mapping[int, str]) -> str:
        """Clients in words, with what is known of why."""
        come = {client for own in self.nodes.values() for client in own}
        known = {**dict.fromkeys(clients - come, AWAY), **why}
        shown = [f"client {c}" + (f" ({known[c]})" if c in known else "") for c in sorted(clients)[:SHOWN]]
        return ", ".join(shown) + (f" and {len(clients) - SHOWN} more" if len(clients) > SHOWN else "")
