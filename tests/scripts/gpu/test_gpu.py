"""One command for whoever has a GPU: valid parts, going on where it stopped, a page without places of a machine."""

import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from common.errors import UserError
from scripts.benchmark import perk_groups
from scripts.gpu import __main__ as gpu
from scripts.gpu import carrying
from scripts.gpu.carrying import Outcome, carry_on, left, read_state, run_part
from scripts.gpu.page import page
from scripts.gpu.parts import MODEL, ROOT, Part, parts, write_model
from tests.kills import alive
from tests.runs import run_here

PARTS = parts()
SLEEP = ("timeit", "-n", "1", "-r", "1", "__import__('time').sleep(1000)")


# ---- the parts


def test_every_file_with_a_test_for_cuda_is_a_part_and_collects() -> None:
    files = [part.words[-1] for part in PARTS if part.kind == "tests"]
    assert "tests/common/engine/test_cuda.py" in files
    words = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "--collect-only", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    one = subprocess.run([*words, *files], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert one.returncode == 0, one.stdout
    assert {line.partition("::")[0] for line in one.stdout.splitlines() if "::" in line} == set(files)


@pytest.mark.parametrize("part", [part for part in PARTS if part.kind == "benchmark"], ids=lambda part: part.name)
def test_every_benchmark_is_a_group_that_compares_with_higher_or_is_perks(
    part: Part, capsys: pytest.CaptureFixture[str]
) -> None:
    _, module, group, *_ = part.words
    importlib.import_module(f"scripts.benchmark.{module}").main([*part.words[2:], "--list"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(group)
    assert 0 < part.minutes < 9


@pytest.mark.parametrize("part", [part for part in PARTS if part.kind == "train"], ids=lambda part: part.name)
def test_every_training_composes(part: Part, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, *words = part.command(tmp_path)[2:]
    assert run_here(importlib.import_module(module).main, *words, "--cfg", "job") == 0, capsys.readouterr().err
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["runtime"]["device"] == "cuda" and shown["model"]["pretrained"] is False
    assert shown["loop"]["root"] == str(tmp_path / "runs")


def test_the_network_of_perks_training_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(perk_groups.SIZES["0.5b"], layers=1, width=32, heads=2, key_heads=1, hidden=48, vocabulary=4096)
    monkeypatch.setitem(perk_groups.SIZES, "0.5b", small)
    write_model(tmp_path)
    (part,) = (part for part in PARTS if part.name == "train/perk-0.5b")
    module, *words = part.command(tmp_path)[2:]
    words = [word for word in words if not word.startswith(("runtime=", "data.count", "data.length"))]
    words += ["runtime=cpu", "data.count={train:2,dev:1,test:1}", "data.length=512", "outer.steps=1"]
    assert run_here(importlib.import_module(module).main, *words, "model.lora.rank=2") == 0
    (file,) = tmp_path.rglob("metrics.jsonl")
    assert '"train"' in file.read_text()


def test_without_a_gpu_it_is_one_message_or_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_here(gpu.main, "--output", str(tmp_path / "out")) == 2
    assert "sees no CUDA device: run this where there is one; --dry-run lists" in capsys.readouterr().err
    assert run_here(gpu.main, "--output", str(tmp_path / "out"), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert all(f"{part.name}: {part.minutes:.1f} min; without CUDA {part.without}" in shown for part in PARTS)
    assert f"{len(PARTS)} parts, about " in shown and "calls of 25 min" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--minutes", "0"], "--minutes 0: use a number above 0"),
        (["--minutes", "nan"], "--minutes nan: use a number above 0"),
        (["--part", "tests/gone"], "--part tests/gone: choose from tests/"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(gpu.main, *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {expected}")


# ---- going on


class Fake:
    """A runner whose parts take the time of a clock of its own, and end as `codes` says."""

    def __init__(self, codes: dict[str, int], minutes: float = 1.0) -> None:
        self.codes, self.minutes, self.now = codes, minutes, 0.0
        self.ran: list[str] = []

    def __call__(self, part: Part, output: Path, seconds: float) -> tuple[int, bool]:
        self.ran.append(part.name)
        taken = min(60 * self.minutes, seconds)
        self.now += taken
        code = self.codes.get(part.name, 0)
        return code, code == 143

    def go_on(self, there: list[Part], output: Path, minutes: float, revision: str = "abc") -> dict[str, Outcome]:
        state = read_state(output)
        return carry_on(left(there, state), output, minutes, (revision, False), self, lambda: self.now)


def toy(*names: str) -> list[Part]:
    return [Part(name, 2.0, SLEEP, "nothing") for name in names]


def test_a_second_call_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    there, fake = toy("tests/a", "tests/b", "train/c"), Fake({"train/c": 143})
    fake.go_on(there, tmp_path, 2.9)
    assert fake.ran == ["tests/a", "train/c"], "what is predicted to be too long is passed over"
    fake.ran.clear()
    state = fake.go_on(there, tmp_path, 10)
    assert fake.ran == ["tests/b", "train/c"], "a training that was cut goes on"
    assert {name: each.state for name, each in state.items()} == {
        "tests/a": "done",
        "train/c": "cut",
        "tests/b": "done",
    }
    assert state["train/c"].seconds == 120
    fake.codes = {}
    assert fake.go_on(there, tmp_path, 10)["train/c"].state == "done"
    fake.ran.clear()
    fake.go_on(there, tmp_path, 10)
    assert fake.ran == []


def test_a_failed_part_is_not_tried_again_but_by_name(tmp_path: Path) -> None:
    there, fake = toy("tests/a", "tests/b"), Fake({"tests/a": 1})
    assert fake.go_on(there, tmp_path, 10)["tests/a"] == Outcome("failed", 60.0, 1, "abc", False)
    fake.ran.clear()
    fake.go_on(there, tmp_path, 10)
    assert fake.ran == []
    carry_on(there[:1], tmp_path, 10, ("abc", False), fake, lambda: fake.now)
    assert fake.ran == ["tests/a"]


def test_no_part_has_more_than_nine_minutes_nor_more_than_the_call(tmp_path: Path) -> None:
    assert carrying.LIMIT + carrying.GRACE < 9 * 60
    given: list[float] = []

    def run(part: Part, output: Path, seconds: float) -> tuple[int, bool]:
        given.append(seconds)
        return 143, True

    for minutes in (25, 3):
        carry_on(toy("train/a"), tmp_path, minutes, ("abc", None), run, lambda: 0.0)
    assert given == [carrying.LIMIT, 180 - carrying.GRACE]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"tests/a": {"state": "done"}}'):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(UserError, match=r"state\.json: .+; remove it to begin anew"):
            read_state(tmp_path)


def test_at_the_end_of_its_time_a_part_gets_sigterm(tmp_path: Path) -> None:
    assert run_part(Part("train/a", 1, SLEEP, ""), tmp_path, 0.3) == (-signal.SIGTERM, True)
    assert run_part(Part("tests/b", 1, ("timeit", "-n", "1", "-r", "1", "pass"), ""), tmp_path, 60) == (0, False)
    assert "loop" in (tmp_path / "tests-b.txt").read_text()


def test_a_part_does_not_outlive_the_command(tmp_path: Path) -> None:
    said = "import os, time, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(1000)"
    program = (
        "from pathlib import Path; from scripts.gpu import carrying; from scripts.gpu.parts import Part; "
        f"carrying.ROOT = Path({str(tmp_path)!r}); "
        f"carrying.run_part(Part('train/a', 1, ('timeit', '-n', '1', '-r', '1', {said!r}), ''), carrying.ROOT, 600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not ((file := tmp_path / "pid").is_file() and file.read_text()):
        assert process.poll() is None
        os.sched_yield()
    process.kill()
    process.wait()
    pid = int(file.read_text())
    while alive(pid):
        os.sched_yield()


# ---- the page


def write_findings(output: Path) -> None:
    (output / "tests-a.xml").write_text(
        '<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1"><testcase name="test_x"><failure '
        f'message="assert 1 == 2 in {output}/x&#10;more"/></testcase></testsuite></testsuites>'
    )
    (output / "benchmark-engine-sgd.md").write_text(f"`python --markdown {output}/x.md`\n\n### sgd\n\n| case |\n")
    folder = output / "runs" / "reckoning" / "e" / "f"
    folder.mkdir(parents=True)
    records = [
        {"split": "dev", "step": 0, "dev/accuracy": 0.25},
        *(
            {
                "split": "train", "step": step, "train/outer_loss": 3.0 - step,
                "cost/seconds_per_step": 0.5, "cost/peak_memory_bytes": 2**31,
            }
            for step in (1, 2)
        ),
        {"split": "dev", "step": 2, "dev/accuracy": 0.5},
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"torn')


def test_the_page_holds_what_was_found_and_no_place_of_this_machine(tmp_path: Path) -> None:
    write_findings(tmp_path)
    there = [
        Part("tests/a", 1, ("pytest",), ""),
        Part("benchmark/engine/sgd", 1, ("scripts.benchmark", "engine", "sgd"), ""),
        Part("train/reckoning", 1, ("reckoning.train",), ""),
        Part("train/perk-0.5b", 1, ("perk.train",), ""),
    ]
    state = {
        "tests/a": Outcome("failed", 61, 1, "1234567890", False),
        "train/reckoning": Outcome("cut", 480, 143, "7654321000", True),
    }
    text = page(there, state, tmp_path, ["- GPU: X"])
    for line in (
        "- GPU: X",
        "- revision: 1234567, 7654321 with local changes; **more than one**",
        "| tests/a | failed | 1.0 | 1 |",
        "| train/perk-0.5b | not run |  |  |",
        "| tests/a.py | 2 | 1 | 1 |",
        "- `test_x`: assert 1 == 2 in <output>/x",
        "### engine: sgd",
        "| train/reckoning | 2 | 2.000 to 1.000 | 0.500 | 2.0 GiB | 25.0 to 50.0 % |",
    ):
        assert line in text.splitlines()
    assert "random weights" in text
    assert str(tmp_path) not in text and str(Path.home()) + "/" not in text


def test_a_call_writes_state_and_page_and_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "parts", lambda: toy("tests/a", "tests/b", "train/c"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sys_words = ["--output", str(tmp_path / "out"), "--minutes", "60"]
    gpu.main([*sys_words, "--part", "tests/b"], run=lambda *_: (0, False))
    assert "1 of 3 parts; 2 parts are left: the same command goes on" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        gpu.main(sys_words, run=lambda *_: (1, False))
    assert caught.value.code == 1
    assert "failed: tests/a, train/c; what they said stands in" in capsys.readouterr().err
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "| tests/b | done |" in text and "- GPU: " in text and "torch " in text
    assert (tmp_path / "out" / MODEL / "config.json").is_file()
