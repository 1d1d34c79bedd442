"""The training command from end to end: what it writes, what it refuses, and that a killed run leaves no trace."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data.dataroot import ROOT_VARIABLE
from common.run.checkpoint import latest
from common.run.items import read_items, score_of
from tests.fal.runs import train, words
from tests.kills import finish_despite_kills
from tests.runs import contents, metrics_of, only_run, run_here
from tests.starter import Starter

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "fal" / "method").glob("*.yaml"))
NAMES = {"natural", "fgsm", "pgd", "cw"}


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    found = Starter("fal.train", "fal.build", "fal.judge", "fal.evaluate", "fal.scoring")
    with found.process:
        yield found


def results_of(root: Path) -> Any:
    return json.loads((only_run(root) / "results.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_attacked(tmp_path: Path, method: str) -> None:
    steps = ["attack.steps=1"] if method in ("fgsm_rs", "free") else []
    steps += ["model=cnn_9k", "model.channels=[4]", "model.hidden=[]"] if method == "fedrbn" else []  # with batch norm
    assert train(tmp_path, f"method={method}", "federation.rounds=2", *steps) == 0
    results, folder = results_of(tmp_path), only_run(tmp_path)
    assert (results["paper"], results["method"]) == ("fal", method)
    whole = {name for name in results["test"] if "@" not in name}
    assert whole == NAMES | {"worst_class", "worst_client", "lowest_fifth"}
    rounds = {name for name in results["test"] if "@round" in name}
    assert rounds == {f"{name}@round_last" for name in NAMES} | {"natural@round_recent", "pgd@round_recent"}
    test = {name: each["value"] for name, each in results["test"].items()}
    assert test["pgd"] <= test["fgsm"] <= test["natural"] and test["worst_class"] <= test["lowest_fifth"]
    assert len(metrics_of(folder, "train")) == 2 and metrics_of(folder, "dev")[-1]["dev/pgd"] <= 1
    items = [item for item in read_items(folder) if item.counts()]
    assert all(score_of(items, name) == pytest.approx(test[name]) for name in NAMES)


@pytest.mark.parametrize(
    "more",
    [
        ["optimiser=fedprox"], ["optimiser=scaffold", "aggregator=median"], ["optimiser=fednova", "method=sfat"],
        ["model=cnn_106k_batch", "model.channels=[4]", "model.hidden=[]"],
        ["aggregator=multi_krum", "aggregator.byzantine=0"],
        ["partition=feature_shift", "partition.clients=4", "federation.weights=size"], ["federation.local_steps=0"],
    ],
    ids=lambda more: more[0],
)  # fmt: skip
def test_groups_compose(tmp_path: Path, more: list[str]) -> None:
    given = [word for word in words(tmp_path, *more) if not (more[0] == "partition=feature_shift" and "share" in word)]
    from fal.train import main

    assert run_here(main, *given, "federation.rounds=2") == 0


@pytest.mark.parametrize(
    "more",
    [
        ["data=clusters", "data.train=240", "data.validation=40", "data.test=60", "attack.norm=l2", "attack.eps=2"],
        ["data.classes=3"],
    ],
    ids=lambda more: more[0],
)  # fmt: skip
def test_vectors_and_few_classes_are_attacked_in_all_ways(tmp_path: Path, more: list[str]) -> None:
    judged = ["evaluation.aa_lite=true", "evaluation.sanity=true", "federation.rounds=1"]
    given = ["partition=iid", "partition.share=0.92", *judged, *more]
    assert train(tmp_path, *given, *(["data.classes=2"] if "clusters" in more[0] else [])) == 0
    test = results_of(tmp_path)["test"]
    assert test["aa_lite"]["value"] <= test["pgd"]["value"] <= test["natural"]["value"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("attack.norm=cap", "attack.norm=cap: it is for the inputs of fal.theory"),
        ("attack.loss=targeted_dlr", "attack.loss=targeted_dlr in training"),
        ("evaluation.eps=25.5", "25.5 of 255 is evaluation.eps=0.1"),
        (
            "data=clusters data.classes=2 attack.start=patch",
            "attack.start=patch with data.source=clusters: it is for images",
        ),
        (
            "data=clusters data.classes=2 attack.start=blocks",
            "attack.start=blocks with data.source=clusters: it is for images",
        ),
    ],
)
def test_attacks_that_cannot_work_are_refused_before_a_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    assert train(tmp_path, *word.split()) == 2
    assert told in capsys.readouterr().err and not list(tmp_path.rglob("metrics.jsonl"))


def test_the_evaluation_is_that_of_the_run_and_another_radius_hurts_more(tmp_path: Path) -> None:
    from fal.evaluate import main

    assert train(tmp_path, "method=fat") == 0
    folder = only_run(tmp_path)
    before = (folder / "results.json").read_text()
    assert run_here(main, f"run={folder}") == 0
    again = json.loads((folder / "evaluation-test.json").read_text())
    assert again == json.loads(before)["test"]
    assert run_here(main, f"run={folder}", "eps=0.3", "split=dev") == 0
    wide = json.loads((folder / "evaluation-dev+eps-0.3.json").read_text())
    assert wide["pgd"]["value"] < again["pgd"]["value"] and (folder / "results.json").read_text() == before


def test_a_weaker_evaluation_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "method=fat", "evaluation.eps=0.05") == 2
    assert "evaluation.eps=0.05 with attack.eps=0.1" in capsys.readouterr().err
    assert (
        train(tmp_path, "method=fat", "evaluation.eps=0.05", "evaluation.allow_weaker=true", "federation.rounds=1") == 0
    )


def test_batch_norm_of_single_items_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["model=cnn_106k_batch", "model.channels=[4]", "model.hidden=[]", "federation.batch=1"]
    assert train(tmp_path, *more) == 2
    assert "federation.batch=1 with batch norm (2.bias): a batch of one has no deviation" in capsys.readouterr().err


def test_a_missing_folder_of_data_gives_a_run_on_generated_ones_that_says_so(tmp_path: Path) -> None:
    more = ["data=fashion_mnist", "data.train=240", "data.test=60", "data.validation=40", f"data.root={tmp_path}"]
    assert train(tmp_path / "runs", "method=fat", *more, "data.classes=10", "federation.rounds=1") == 0
    folder = only_run(tmp_path / "runs")
    assert "shapes in place of fashion_mnist" in (folder / "log.txt").read_text().splitlines()[0]
    assert json.loads((folder / "results.json").read_text())["experiment"] == "none on shapes in place of fashion_mnist"


def test_no_evaluation_takes_generated_images_for_real_ones(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fal.evaluate import main

    more = ["data=fashion_mnist", "data.train=200", "data.test=20", "data.validation=20", "data.classes=10"]
    assert train(tmp_path, "method=fat", *more, f"data.root={data_root}", "federation.rounds=1") == 0
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert run_here(main, f"run={only_run(tmp_path)}") == 2
    assert "is needed; set data.root=<folder> or the environment" in capsys.readouterr().err
    assert run_here(main, f"run={only_run(tmp_path)}", f"root={data_root}") == 0


def test_an_own_method_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "conf" / "method"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults: [fat]\nmethod: {name: mine, fraction: 0.5}\n"
    )
    assert train(tmp_path, f"hydra.searchpath=[pkg://conf.common,{own.parent}]", "method=mine") == 0
    assert results_of(tmp_path)["method"] == "mine"


SETTINGS = ["method=sfat", "optimiser=scaffold", "federation.participation=0.5", "partition.clients=8"]


def compare(starter: Starter, root: Path, *, kills: int, rounds: int, seed: int) -> list[str]:
    settings = [*SETTINGS, f"federation.rounds={rounds}", "loop.evaluate_every=5"]
    straight, killed = root / "straight", root / "killed"
    starter.start(root / "straight.txt", words(straight, *settings, f"hydra.run.dir='{straight}'"))
    assert starter.wait() == 0, (root / "straight.txt").read_text()
    given = words(killed, *settings, f"hydra.run.dir='{killed}'")
    hits = finish_despite_kills(starter, given, root / "killed.txt", killed, kills, seed)
    expected, found = contents(straight), contents(killed)
    assert expected.keys() == found.keys() and any("clients/7.safetensors" in name for name in expected)
    for name in expected:
        assert expected[name] == found[name], name
    return hits


def test_two_kills_leave_no_trace_of_sampled_clients_with_variates(starter: Starter, tmp_path: Path) -> None:
    assert len(compare(starter, tmp_path, kills=2, rounds=12, seed=3)) == 2, "the run ended before it could be killed"


@pytest.mark.faults
def test_twenty_kills_leave_no_trace(starter: Starter, tmp_path: Path) -> None:
    assert len(compare(starter, tmp_path, kills=20, rounds=80, seed=1)) == 20


def test_a_checkpoint_of_many_clients_writes_what_changed(tmp_path: Path) -> None:
    """100 clients of which 10 take part: a later checkpoint writes at most 15 % of the first."""
    more = [
        "optimiser=scaffold",
        "partition=iid",
        "partition.clients=100",
        "data.train=800",
        "federation.participation=0.1",
    ]
    given = [word for word in words(tmp_path, *more) if "share" not in word]
    from fal.train import main

    assert run_here(main, *given, "method=fat", "federation.rounds=2", "loop.keep=5", "model.hidden=[64]") == 0
    folders = sorted((only_run(tmp_path) / "checkpoints").glob("step-*"))
    sizes = [{path: path.stat() for path in folder.rglob("*") if path.is_file()} for folder in folders[-2:]]
    first = sum(each.st_size for each in sizes[0].values())
    old = {each.st_ino for each in sizes[0].values()}
    written = sum(each.st_size for each in sizes[1].values() if each.st_ino not in old)
    assert written < 0.15 * first


def test_the_best_and_the_last_rounds_are_kept(tmp_path: Path) -> None:
    assert train(tmp_path, "method=fat") == 0
    found = latest(only_run(tmp_path) / "checkpoints")
    assert found is not None and sorted(found.objects["recent"]) == ["3", "4"]
    state, recent = found.objects["server"]["weights"], found.objects["recent"]["4"]["weights"]
    assert all(torch.equal(state[name], recent[name]) for name in state)
