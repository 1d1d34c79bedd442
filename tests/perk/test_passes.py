"""The passes over a split: as the data set has it, at further lengths, at further positions, none of them twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from perk import data
from perk.apis.config import Position
from perk.babilong.config import Placement
from perk.config import TrainConfig
from perk.evaluate import measure_shortcuts, passes
from perk.variants import position_of
from tests.runs import only_run

FEW = ["scale=cpu", "data.cache=null", "data.count={train:6,dev:2,test:3}"]


@pytest.fixture
def asked(composed: Callable[..., TrainConfig]) -> Callable[..., TrainConfig]:
    return lambda experiment, *words: composed(f"+experiment={experiment}", *FEW, *words)


def where(config: TrainConfig, split: str = "test") -> list[tuple[int, str | None, str]]:
    return [(each.length, each.position, each.further) for each in passes(config, split)]


def test_the_data_set_as_it_is_comes_first_and_counts_for_its_own_length_and_position(asked: Any) -> None:
    assert where(asked("babilong_qa1", "data.length=1024")) == [(1024, None, "")]
    config = asked("babilong_qa1", "data.length=1024", "evaluation.lengths=[2048,1024,4096,2048]")
    assert where(config) == [(1024, None, ""), (2048, None, "length"), (4096, None, "length")]
    config = asked("api_retrieval", "data.apis.position=post", "evaluation.positions=[pre,post]")
    assert where(config) == [(4096, "post", ""), (4096, "pre", "position")]


def test_the_test_split_may_have_a_length_and_a_position_of_its_own(asked: Any) -> None:
    words = ["data.test_length=2048", "data.babilong.test_placement=mid", "data.length=1024"]
    config = asked("babilong_qa2", *words, "evaluation.lengths=[1024,2048]", "evaluation.positions=[mid,scattered]")
    assert where(config) == [(2048, "mid", ""), (1024, None, "length"), (2048, "scattered", "position")]
    assert where(config, "dev") == [(1024, "scattered", ""), (2048, None, "length"), (1024, "mid", "position")]
    _, shorter, moved = passes(config)
    assert shorter.data.length_of("test") == 1024 // config.data.shrink
    assert moved.data.babilong.test_placement is Placement.scattered
    assert position_of(asked("student_recall").data, "test") is None


@pytest.mark.parametrize("position", list(Position))
def test_the_own_pass_is_the_one_that_asking_for_its_position_would_give(asked: Any, position: Position) -> None:
    """So it is right not to go over it twice."""
    own = asked("api_retrieval", "data.length=2048", f"data.apis.position={position}").data
    other = Position.pre if position is not Position.pre else Position.post
    config = asked(
        "api_retrieval", "data.length=2048", f"data.apis.position={other}", f"evaluation.positions=[{position}]"
    )
    moved = passes(config)[1]
    assert list(data.load(own)["test"]) == list(data.load(moved.data)["test"]) != list(data.load(config.data)["test"])


def test_further_passes_may_have_fewer_problems_the_first_ones(asked: Any) -> None:
    words = ["data.length=1024", "evaluation.lengths=[2048]", "evaluation.problems="]
    some, every = (passes(asked("babilong_qa1", *words[:2], words[2] + most))[1].data for most in ("2", "0"))
    assert list(data.load(some)["test"]) == list(data.load(every)["test"])[:2] and len(data.load(every)["test"]) == 3
    config = asked("babilong_qa1", *words[:2], "evaluation.problems=2")
    _, items = measure_shortcuts(data.load(config.data), config)
    assert [item.slices["length"] for item in items] == [1024] * 3 + [2048] * 2


def test_rules_are_scored_in_every_pass_and_learn_constants_from_the_training_split(asked: Any) -> None:
    config = asked("api_retrieval", "data.length=2048", "evaluation.positions=[pre,rnd]", "evaluation.lengths=[4096]")
    metrics, items = measure_shortcuts(data.load(config.data), config)
    assert [(i.slices["length"], i.slices.get("position"), i.further) for i in items[::3]] == [
        (2048, "rnd", ""), (4096, None, "length"), (2048, "pre", "position"),
    ]  # fmt: skip
    assert metrics["accuracy_first_document@position_pre"].value == 1.0
    assert metrics["accuracy_first_document"] == metrics["accuracy_first_document@position_rnd"]
    assert metrics["accuracy_chance@length_4096"].value < metrics["accuracy_chance"].value
    slices = {name.partition("@")[2] for name in metrics}
    assert slices == {"", "length_2048", "length_4096", "position_pre", "position_rnd"}
    rules = {name for name in metrics if "@" not in name}
    for name, interval in metrics.items():
        rule, _, part = name.partition("@")
        field, _, value = part.partition("_")
        of = [
            i.scores[rule][0]
            for i in items
            if (str(i.slices.get(field)) == value and i.further in ("", field) if part else not i.further)
        ]
        assert interval.value == pytest.approx(sum(of) / len(of)) and interval.count == len(of) == 3
    assert all(rules == set(item.scores) for item in items)


def test_a_run_of_rules_obeys_lengths_as_trained_ones_do(mini: Any, tmp_path: Path) -> None:
    words = ["evaluation.lengths=[256]", "outer.steps=1", "data.count={train:4,dev:1,test:2}", "loop.evaluate_every=0"]
    found = {}
    for method in ("shortcuts", "ft_icr"):
        assert mini.train(tmp_path / method, f"method={method}", *words) == 0
        folder = only_run(tmp_path / method)
        test = json.loads((folder / "results.json").read_text())["test"]
        items = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        found[method] = [(i["id"], i["group"], i["slices"], i.get("further"), i["answer"]) for i in items]
        wanted = {f"length_{length}" for length in (256, 512)}
        assert wanted <= {name.partition("@")[2] for name in test}
    assert found["shortcuts"] == found["ft_icr"] and len(found["ft_icr"]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.positions=[middle]"], "evaluation.positions: middle is none of scattered"),
        (["evaluation.lengths=[64]"], "evaluation.lengths=[64]: data.segment=128: longer than the context"),
        (["data.babilong.budget=inside", "evaluation.lengths=[131]"], "evaluation.lengths: 131: qa1_cpu/test/0: "),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(
    mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert mini.train(tmp_path, *words) == 2
    shown = capsys.readouterr()
    assert said in shown.err and "train/outer_loss" not in shown.out


def test_contexts_from_files_have_no_other_length(asked: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="has contexts as the file has them; use"):
        passes(asked("student_recall", "data.files.train=records.json", "evaluation.lengths=[4096]"))
    with pytest.raises(UserError, match="students have no positions; use"):
        passes(asked("student_recall", "evaluation.positions=[pre]"))
