"""The two ends of every table: clients that train each by itself, and one model on all of their images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.engine.weights import stack_of, unstack
from common.errors import UserError
from common.run.items import read_items
from fal.alarm import Alarm
from fal.alone import Alone
from fal.build import build
from fal.scoring import Judged, items_of, of_classes, of_models
from fal.states import ServerState
from tests.fal.runs import train
from tests.fal.small import apart, federation, optimiser
from tests.runs import only_run, run_here

EXACT = 1e-12
WORDS = [
    "scale=cpu", "data=shapes", "data.train=200", "data.validation=30", "data.test=40", "data.cache=null",
    "model=mlp_64", "federation.batch=4",
]  # fmt: skip


def alone(clients: int = 4, **settings: Any) -> Alone:
    found = federation("fat", clients, **settings)
    weights, buffers = (stack_of([each] * clients) for each in found.server.state)
    rest = found.local, found.images, found.clients, found.config, found.optimiser, found.aggregator, found.seed
    return Alone(*rest, ServerState(weights, buffers), found.states)


@pytest.mark.parametrize("kind", ["mlp", "bn"])
@pytest.mark.parametrize("stack", [False, True])
def test_a_client_that_trains_by_itself_is_a_federation_of_one(kind: str, stack: bool) -> None:
    settings: dict[str, Any] = {"kind": kind, "batch": 3, "optimised": optimiser(lr=0.1, momentum=0.9)}
    ours = alone(stack=stack, **settings)
    rounds = [ours.round(number) for number in (1, 2, 3)]
    assert all(each.clients == 4 and each.metrics["bytes"] == 0 for each in rounds)
    for client in range(4):
        single = federation("fat", 4, **settings)
        single.chosen = lambda number, own=single.clients[client]: [own]  # type: ignore[method-assign, misc]
        for number in (1, 2, 3):
            single.round(number)
        assert apart(unstack(ours.server.weights, client), single.server.weights) < EXACT
        assert not ours.server.buffers or apart(unstack(ours.server.buffers, client), single.server.buffers) < EXACT


def test_a_client_that_is_not_chosen_stays_where_it_is() -> None:
    found = alone(participation=0.5)
    before = found.server.weights
    chosen = {client.number for client in found.chosen(1)}
    found.round(1)
    for client in range(4):
        moved = apart(unstack(found.server.weights, client), unstack(before, client))
        assert (moved > 0) == (client in chosen) and len(chosen) == 2


def test_local_training_has_a_model_for_each_client(composed: Callable[..., Any]) -> None:
    parts = build(composed(*WORDS, "method=local_at", "partition.clients=4"), torch.device("cpu"), torch.float32)
    assert isinstance(parts.federation, Alone)
    models = parts.federation.local.network.modules(*parts.federation.server.state)
    assert len(models) == 4 and len(parts.federation.clients) == 4
    parts.federation.round(1)
    x = parts.splits["test"].x[:3]
    seen = [model(x) for model in parts.federation.local.network.modules(*parts.federation.server.state)]
    assert not torch.allclose(seen[0], seen[1])


def test_centralised_training_has_all_images_and_as_many_steps(composed: Callable[..., Any]) -> None:
    words = [*WORDS, "partition.clients=4", "federation.local_steps=5"]
    whole, shared = (
        build(composed(*words, f"method={name}"), torch.device("cpu"), torch.float32)
        for name in ("centralised_at", "fat")
    )
    (client,) = whole.federation.clients
    theirs = torch.cat([each.indices for each in shared.federation.clients])
    assert torch.equal(client.indices, theirs.sort().values) and torch.equal(whole.counts, shared.counts)
    assert whole.counts.shape[0] == 4, "clients are judged on their own mixtures"
    work = whole.federation.work(client, 1)
    assert work is not None and len(work.batches) == 4 * 5 and {len(each) for each in work.batches} == {4}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=local_at", "optimiser=scaffold"], "optimiser with method.training=local: nothing is exchanged"),
        (["method=local_at", "aggregator=median"], "aggregator with method.training=local"),
        (["method=local_at", "byzantine=noise"], "byzantine with method.training=local"),
        (
            ["method=centralised_at", "engine=flower_simulation"],
            "engine=flower_simulation with method.training=central",
        ),
        (["method=free", "attack.start=random"], "attack.start=random with method.objective=free"),
    ],
)
def test_what_has_no_meaning_at_an_end_is_refused(composed: Callable[..., Any], words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        composed(*WORDS, *words)


def test_propagation_without_batch_norm_is_refused(composed: Callable[..., Any]) -> None:
    config = composed(*WORDS, "method=fedrbn", "model=cnn_9k", "model.norm=group")
    with pytest.raises(UserError, match="method.able=0.5 with model.norm=group: .* use model.norm=batch"):
        build(config, torch.device("cpu"), torch.float32)


def test_a_local_run_is_evaluated_again_as_it_was(tmp_path: Path) -> None:
    from fal.evaluate import main

    assert train(tmp_path, "method=local_at", "federation.rounds=2") == 0
    folder = only_run(tmp_path)
    assert run_here(main, f"run={folder}") == 0
    results = json.loads((folder / "results.json").read_text())
    assert json.loads((folder / "evaluation-test.json").read_text()) == results["test"]
    shares = {item.scores["natural"][0] for item in read_items(folder) if item.counts()}
    assert shares <= {0.0, 0.25, 0.5, 0.75, 1.0} and shares - {0.0, 1.0}, "means over four models"


# ---- their numbers

RIGHT = torch.tensor([1, 1, 0, 1, 0, 0])
Y = torch.tensor([0, 0, 0, 1, 1, 1])


def test_a_client_with_a_model_of_its_own_is_judged_by_that() -> None:
    """By class: model 0 is right on 2/3 and 1/3, model 1 on 1/3 and 2/3."""
    counts, right = torch.tensor([[4, 0], [1, 1]]), torch.stack([RIGHT, 1 - RIGHT])
    found = of_models(right, Y, counts)
    expected = {"worst_class": 1 / 3, "worst_client": 0.5, "lowest_fifth": 0.5}
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
    assert found["worst_client"].without["image 2"] == pytest.approx((0 + 2 / 3) / 2)
    alone = of_models(right[:1], Y, counts)
    assert {name: each.value for name, each in alone.items()} == {
        name: each.value for name, each in of_classes(RIGHT, Y, counts).items()
    }


def test_items_of_several_models_are_right_by_a_share() -> None:
    right = torch.stack([RIGHT, 1 - RIGHT, torch.ones_like(RIGHT), torch.ones_like(RIGHT)])
    shown = [item.scores["pgd"] for item in items_of(Judged(*[{"pgd": right}] * 3), Y, "test")]
    assert set(shown) == {(0.75, 1)}


# ---- the alarm


def test_training_by_one_step_warns_once_where_pgd_falls_far_behind_fgsm(
    composed: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    alarm = Alarm(composed(*WORDS, "method=fgsm_rs"))
    assert alarm.metrics == ("fgsm",)
    assert alarm.look(10, {"natural": 0.9, "fgsm": 0.55, "pgd": 0.5}) == pytest.approx({"pgd_minus_fgsm": -0.05})
    assert not caplog.text
    for step in (20, 30):
        alarm.look(step, {"natural": 0.9, "fgsm": 0.8, "pgd": 0.01})
    (record,) = caplog.records
    told = record.getMessage()
    assert "round 20: method=fgsm_rs is right on 80.0 % of dev under FGSM and on 1.0 % under PGD" in told
    assert "attack.step_size" in told and "method=fat" in told


@pytest.mark.parametrize("method", ["fat", "fedavg", "calfat"])
def test_training_by_several_steps_or_none_is_not_watched(composed: Callable[..., Any], method: str) -> None:
    alarm = Alarm(
        composed(*WORDS, f"method={method}", *(["attack.kind=fgsm", "attack.steps=1"] * (method == "fedavg")))
    )
    assert not alarm.metrics and alarm.look(1, {"natural": 0.9, "pgd": 0.0}) == {}
