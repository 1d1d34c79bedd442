"""Who takes part in a round, what is left out of it, and what of it survives a restart."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from common.errors import UserError
from fal.client import Update, Work
from fal.config import TrainConfig
from fal.settings import FederationConfig, Optimiser, OptimiserConfig
from fal.states import ClientStates
from fal.trust import Aggregator, AggregatorConfig
from tests.fal.small import apart, federation, net, optimiser, trained


def test_a_share_of_the_clients_takes_part_and_never_the_same_ones() -> None:
    found = federation("fat", 8, participation=0.5)
    chosen = [[client.number for client in found.chosen(number)] for number in range(1, 20)]
    assert all(len(set(each)) == 4 and each == sorted(each) for each in chosen)
    assert len(set(map(tuple, chosen))) > 10 and {client for each in chosen for client in each} == set(range(8))
    with pytest.raises(UserError, match="federation.participation=0.01 of 8 clients takes none; use 0.125 or more"):
        federation("fat", 8, participation=0.01)


def test_drop_outs_and_stragglers_are_left_out_or_do_less() -> None:
    away = federation("fat", 8, dropouts=0.5)
    assert {len(away.chosen(number)) for number in range(1, 30)} > {3, 4, 5}
    slow = federation("fat", 8, local_steps=4, stragglers=0.5, deadline=0.5)
    steps = [len(work.batches) for n in range(1, 9) for c in slow.clients if (work := slow.work(c, n)) is not None]
    assert set(steps) == {2, 4} and 16 < steps.count(2) < 48
    late = federation("fat", 8, local_steps=4, stragglers=1.0, deadline=0.2)
    before = late.server.weights
    assert late.round(1).clients == 0 and late.server.weights is before


def test_a_round_with_too_few_updates_for_the_rule_keeps_the_weights() -> None:
    found = federation("fat", 5, dropouts=0.5, aggregator=AggregatorConfig(Aggregator.krum, byzantine=0))
    counts = {number: len(found.chosen(number)) for number in range(1, 9)}
    assert {count >= 3 for count in counts.values()} == {True, False}
    for number, count in counts.items():
        before = found.server.weights
        assert found.round(number).clients == (count if count >= 3 else 0)
        assert (found.server.weights is before) == (count < 3)


@pytest.mark.parametrize(("epochs", "steps"), [(0.1, 1), (0.5, 2), (1.0, 3), (2.5, 8)])
def test_local_epochs_may_be_fractions(epochs: float, steps: int) -> None:
    found = federation("fat", 4, batch=2, local_epochs=epochs, local_steps=0)  # of 6 items
    work = found.work(found.clients[1], 1)
    assert work is not None and len(work.batches) == steps
    own = set(found.clients[1].indices.tolist())
    for epoch in range(steps // 3):
        seen = torch.cat(list(work.batches[3 * epoch : 3 * epoch + 3])).tolist()
        assert set(seen) == own and len(seen) == 6, "an epoch has every item once"


def test_a_full_batch_is_all_of_the_clients_items() -> None:
    found = federation("fat", list(torch.arange(24).split([4, 20])), local_epochs=2, local_steps=0)
    works = [found.work(client, 1) for client in found.clients]
    assert [[len(batch) for batch in work.batches] for work in works if work] == [[4, 4], [20, 20]]


def test_a_client_without_a_full_batch_is_refused() -> None:
    with pytest.raises(UserError, match="client 1 has 2 of the 24 items and federation.batch=3: every client needs"):
        federation("fat", list(torch.arange(24).split([22, 2])), batch=3)
    with pytest.raises(UserError, match="client 0 has 0 of the 24 items"):
        federation("fat", [torch.arange(0), torch.arange(24)])


class Spoiler:
    """Makes a client's update something else."""

    def __init__(self, client: int, value: float) -> None:
        self.client, self.value = client, value

    def disguised(self, client: int, work: Work) -> Work:
        return work

    def tampered(self, found: dict[int, Update], number: int) -> dict[int, Update]:
        delta = {name: torch.full_like(w, self.value) for name, w in found[self.client].delta.items()}
        return {**found, self.client: replace(found[self.client], delta=delta)}


@pytest.mark.parametrize(("value", "reason"), [(torch.nan, "is not finite"), (1e9, "is .* long, over 1e.06 times")])
def test_a_wrong_update_is_named_left_out_and_counted(
    value: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = federation("fat", 4, max_rejected=2)
    found.byzantine = Spoiler(2, value)  # type: ignore[assignment]
    rounds = [found.round(1), found.round(2)]
    assert [list(each.left_out) for each in rounds] == [[2], [2]] and rounds[0].clients == 3
    assert "round 2: the update of client 2" in caplog.text and found.server.rejected == 2
    import re

    assert re.search(reason, rounds[0].left_out[2])
    alone = federation("fat", 4)
    alone.chosen = lambda number: [c for c in alone.clients if c.number != 2]  # type: ignore[method-assign]
    assert apart(found.server.weights, trained(alone, 2)) < 1e-12
    with pytest.raises(UserError, match="3 updates were rejected up to round 3, the last of client 2 .*more than fed"):
        found.round(3)


@pytest.mark.parametrize("rule", ["fedavg", "fednova", "scaffold", "feddyn"])
def test_updates_that_are_added_up_as_they_come_give_what_kept_ones_give(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"kind": "bn", "optimised": optimiser(rule), "weights": "size", "batch": 3}
    parts = list(torch.arange(24).split([3, 5, 9, 7]))
    added = federation("fat", parts, **settings)
    assert added.streams and not added.collected({0: added.work(added.clients[0], 1)}, 1).updates[0].delta  # type: ignore[dict-item]
    trained(added)
    monkeypatch.setattr("fal.federation.Federation.streams", False)
    kept = federation("fat", parts, **settings)
    assert apart(added.server.weights, trained(kept)) < 1e-12
    assert apart(added.server.buffers, kept.server.buffers) < 1e-12


def test_an_update_that_turns_out_too_long_is_taken_out_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is known once all have come: the round is trained again without it."""
    import fal.federation

    step, found = fal.federation.client_step, federation("fat", 4)

    def spoiled(local: Any, rule: Any, data: Any, start: Any, works: Any) -> Any:
        updates = step(local, rule, data, start, works)
        return [
            replace(each, delta={name: 1e9 + w for name, w in each.delta.items()}) if work.key.client == 1 else each
            for work, each in zip(works, updates, strict=True)
        ]

    monkeypatch.setattr(fal.federation, "client_step", spoiled)
    assert found.streams and list(found.round(1).left_out) == [1]
    monkeypatch.setattr(fal.federation, "client_step", step)
    alone = federation("fat", 4)
    alone.chosen = lambda number: [c for c in alone.clients if c.number != 1]  # type: ignore[method-assign]
    assert apart(found.server.weights, trained(alone, 1)) < 1e-12


def test_a_round_of_wrong_updates_leaves_the_weights() -> None:
    found = federation("fat", 1)
    found.byzantine = Spoiler(0, torch.nan)  # type: ignore[assignment]
    before = found.server.weights
    assert found.round(1).clients == 0 and found.server.weights is before


def test_what_the_theorem_does_not_cover_is_named() -> None:
    assert FederationConfig().extensions(OptimiserConfig()) == []
    config = FederationConfig(batch=8, participation=0.5, dropouts=0.1, stragglers=0.5, deadline=0.5)
    named = config.extensions(OptimiserConfig(name=Optimiser.fednova, momentum=0.9))
    assert named == ["minibatches", "client sampling", "stragglers", "drop-outs", "momentum", "fednova"]


def test_the_learning_rate_falls_from_round_to_round() -> None:
    found = federation("fal", optimised=optimiser(decay=0.5))
    assert [found.optimiser_of(number).lr for number in (1, 2, 3)] == [0.3, 0.15, 0.075]
    own = federation("fal", changed={"eta_local": 0.1}, optimised=optimiser(decay=0.5))
    assert [own.optimiser_of(number).lr for number in (1, 2)] == [0.1, 0.05]


def test_the_network_is_never_written_to() -> None:
    module = net("bn")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = federation("fat", module=module, kind="bn")
    held = {name: value.clone() for name, value in found.local.network.modes[True].state_dict().items()}
    trained(found)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, held[name]) for name, value in found.local.network.modes[True].state_dict().items())
    assert not torch.equal(found.server.buffers["1.running_mean"], held["1.running_mean"])


@pytest.mark.parametrize("kind", ["fedavg", "scaffold", "feddyn"])
def test_a_federation_that_is_put_back_goes_on_with_the_same_bits(kind: str) -> None:
    settings: dict[str, Any] = {"optimised": optimiser(kind), "participation": 0.5, "batch": 3, "kind": "bn"}
    straight, stopped, again = (federation("sfat", 6, **settings) for _ in range(3))
    trained(straight, 4)
    trained(stopped, 2)
    again.server.load_state_dict(stopped.server.state_dict())
    again.states.load_state_dict(stopped.states.state_dict())
    for number in (3, 4):
        again.round(number)
    assert apart(again.server.weights, straight.server.weights) == 0
    for client, variate in straight.states.variates.items():
        assert apart(again.states.variates[client], variate) == 0


def test_scaffold_is_continued_with_the_clients_it_began_with() -> None:
    with pytest.raises(UserError, match="partition.clients=2: the checkpoint has variates of 3 clients"):
        ClientStates({0: {}, 1: {}}).load_state_dict({"0": {}, "1": {}, "2": {}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"participation": -0.5}, "federation.participation=-0.5: it is a share; use 0 to 1"),
        ({"dropouts": 1.5}, "federation.dropouts=1.5: it is a share"),
        ({"rounds": 0}, "federation.rounds=0"),
        ({"local_epochs": 0.0}, "federation.local_epochs=0: use a number above 0"),
        ({"anneal": 1.5}, "federation.anneal=1.5: it is a factor"),
        ({"anneal_every": 0}, "federation.anneal_every=0: use 1 or more"),
    ],
)
def test_impossible_federations_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FederationConfig(**settings)


def test_an_evaluation_weaker_than_training_is_refused() -> None:
    from fal.adversary.config import AttackConfig
    from fal.config import EvaluationConfig

    strong = AttackConfig(eps=0.1, steps=30)
    assert TrainConfig(attack=strong).evaluation.steps is None
    for key, value in (("steps", 20), ("eps", 0.05)):
        with pytest.raises(UserError, match=f"evaluation.{key}={value} with attack.{key}=.*allow_weaker=true"):
            TrainConfig(attack=strong, evaluation=EvaluationConfig(**{key: value}))
        TrainConfig(attack=strong, evaluation=EvaluationConfig(**{key: value}, allow_weaker=True))  # type: ignore[arg-type]
