"""Folder names: the same words give the same name as ever, and what cannot change a number is no part of it."""

import hashlib
import importlib
from pathlib import Path

import pytest

from common.run.run_name import file_name, paper_of, run_name

ROOT = Path(__file__).parents[3]
PAPERS = [path.name.partition(".")[0] for path in sorted((ROOT / "docs" / "results").glob("*.runs.tar.xz"))]
LEFT_OUT = [
    *("runtime=gpu", "runtime.threads=4", "runtime.deterministic=false"),
    *("tracker=wandb", "tracker.mode=offline", "tracker.project=p", "tracker.entity=e", "tracker.tags=[a]"),
    *("data.root=there", "data.cache=there", "loop.root=there", "loop.keep=1"),
    *("loop.log_every=1", "loop.save_every=1", "loop.save_seconds=1", "+experiment=proofwriter", "+sweep=table1"),
]
LACKING = {"fal": ("data.export",), "slowfast_vgen": ("data.export", "data.cache")}
"""Keys that a paper's schema does not have."""


@pytest.mark.parametrize("paper", PAPERS)
def test_a_name_holds_what_makes_the_run_what_it_is_and_nothing_else(paper: str) -> None:
    schema = importlib.import_module(f"{paper}.config").SCHEMAS["train"]
    assert paper_of(schema) == paper
    words = ["seed=1", "method=ft_icr", "+data.new=a=b", "~data.labels", "runtime.dtype=float64", "data=jsonl"]
    name = "+data.new-a-b+data-jsonl+method-ft_icr+runtime.dtype-float64+seed-1+_data.labels"
    absent = LACKING.get(paper, ())
    left_out = [word for word in [*LEFT_OUT, "data.export=there"] if not word.startswith(absent)]
    assert run_name(words, schema) == run_name([*left_out, *words], schema) == name
    assert run_name(left_out, schema) == "default"
    assert run_name(["loop.evaluate_every=5"], schema) == "loop.evaluate_every-5", "it decides which model is selected"


def test_the_run_time_study_is_named_by_threads_too() -> None:
    from reckoning.cost_config import CostConfig

    words = ["+sweep=run_time", "runtime=cpu", "runtime.threads=2", "inner.steps=4"]
    assert run_name(words, CostConfig) == "inner.steps-4+runtime.threads-2+runtime-cpu"


def test_a_name_can_be_typed() -> None:
    assert file_name("") == "default"
    assert file_name("method-a+seed-1") == "method-a+seed-1"
    assert file_name("data.x-[1, 2]") == "data.x-_1_2"
    long = [file_name(f"data.labels-{'x' * 300}{end}") for end in "ab"]
    assert max(map(len, long)) <= 200 and long[0] != long[1]


@pytest.mark.parametrize(
    "text", ["日本語" * 200, "é" * 150, "a" + "語" * 100, "x" * 300, "😀語" * 80, "a\udce3" + "語" * 99]
)
def test_a_name_fits_any_disk_in_bytes_and_is_cut_between_characters(text: str, tmp_path: Path) -> None:
    name = file_name(text)
    assert len(name.encode()) <= 200
    (tmp_path / f".evaluation-{name}.json.tmp-0123456789abcdef").write_text("")
    assert name != file_name(text + "2")


def test_a_name_of_ascii_is_what_it_was() -> None:
    digest = hashlib.sha256(b"x" * 300).hexdigest()[:12]
    assert file_name("x" * 300) == f"{'x' * 180}-{digest}" and file_name("x" * 200) == "x" * 200
