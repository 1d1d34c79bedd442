"""The run-time study: all ways to answer give the right answers, lines cross where they must, runs are like others."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from common.engine.inner import adapt
from common.engine.rates import make_rates
from common.engine.rules import make_rule
from common.engine.settings import InnerConfig
from common.engine.weights import call, select
from common.errors import UserError
from common.language.batch import Row, to_rows
from common.language.config import ModelConfig
from common.language.model import LanguageModel, load, of_shape
from common.language.objective import mean_loss
from common.run.results import read
from common.tables import published
from common.tables.breakeven import Line, break_even
from common.tables.comparison import tables_of
from common.tables.join import join
from common.tables.kept import digest_of
from common.tables.runs import read_runs
from reckoning import cost
from reckoning.cost import Summary, line_through
from reckoning.reading import Example, example_of, ways
from scripts.report.colours import Colours
from scripts.report.cost import block as cost_block
from scripts.tables.grids import render
from scripts.tables.published_tables import grid_of
from tests.runs import run_here

CPU = torch.device("cpu")
INNER = InnerConfig(steps=2, lr=0.01)
SHAPE = ["shape.layers=1", "shape.width=8", "shape.heads=2", "shape.vocabulary=32"]


def model_of(kind: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Learned positions, or rotary ones; loud weights, so that answers differ between questions."""
    config = ModelConfig(name="tiny", pretrained=False)
    if kind == "gpt2":
        found = of_shape(2, 16, 2, 64, 128, config, device=CPU, dtype=dtype)
    else:
        found = load(config, 26, device=CPU, dtype=dtype)
    with torch.no_grad():
        for weight in found.network.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    found.network.eval()
    return found


@pytest.fixture(scope="module")
def example() -> Example:
    return example_of(96, 8, 5, seed=0, device=CPU)


@pytest.mark.parametrize("kind", ["gpt2", "tiny"])
def test_cached_and_batched_reading_give_the_answers_of_reading_again(kind: str, example: Example) -> None:
    there = ways(model_of(kind), INNER, example)
    expected = there["ft_icr"].ask(None, example.questions)
    assert len(set(expected.argmax(-1).tolist())) > 1
    for name in ("ft_icr_cached", "ft_icr_batched"):
        reading = there[name].read()
        for _ in range(2):  # a reading serves any number of times
            found = there[name].ask(reading, example.questions)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
            assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("kind", ["gpt2", "tiny"])
def test_the_context_stands_before_the_question(kind: str, example: Example) -> None:
    model = model_of(kind)
    found = ways(model, INNER, example)["ft_icr"].ask(None, example.questions[:1])
    ids = torch.cat([example.facts.flatten(), example.questions[0]])[None]
    with torch.no_grad():
        torch.testing.assert_close(found, model.network(ids).logits[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "tiny"])
def test_encoded_knowledge_answers_alike_one_by_one_and_at_once(kind: str, example: Example) -> None:
    model = model_of(kind, torch.float64)
    there = ways(model, INNER, example)
    fast = there["reckoning"].read()
    one, many = (there[name].ask(fast, example.questions) for name in ("reckoning", "reckoning_batched"))
    torch.testing.assert_close(one, many, rtol=1e-9, atol=1e-9)
    rows = to_rows([Row(tuple(f), 1) for f in example.facts.tolist()], pad=0, device=CPU, dtype=torch.float64)
    rates = make_rates(INNER, list(select(model.network)))
    expected = adapt(
        lambda weights, part: mean_loss(model.losses, weights, part), select(model.network), [rows],
        steps=2, rule=make_rule(INNER), rates=rates,
    ).weights  # fmt: skip
    assert any(not torch.equal(fast[name], w) for name, w in select(model.network).items())
    for name, weight in expected.items():
        torch.testing.assert_close(fast[name], weight.detach(), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        plain = call(model.network, fast, input_ids=example.questions).logits[:, -1]
    torch.testing.assert_close(many, plain, rtol=1e-9, atol=1e-9)


def test_an_example_has_the_published_sizes() -> None:
    example = example_of(1024, 8, 64, seed=0, device=CPU)
    assert example.facts.shape == (8, 127) and example.questions.shape == (64, 7), "7 for x, 1 answer, 1016 for K"
    assert set(example.facts.unique().tolist()) == set(range(26))
    assert len({tuple(question) for question in example.questions.tolist()}) == 64
    with pytest.raises(UserError, match="a fact needs two tokens"):
        example_of(16, 8, 1, seed=0, device=CPU)


# ---- lines and where they cross


def test_a_line_is_found_again() -> None:
    found = line_through({n: 0.5 + 0.25 * n for n in (1, 2, 4, 64)})
    assert (found.read, found.question) == pytest.approx((0.5, 0.25))
    nothing_once = line_through({n: 0.3 * n - 0.01 for n in (1, 2, 4)})
    assert nothing_once.read == 0, "no negative time"


@pytest.mark.parametrize(
    ("ours", "other", "questions"),
    [
        (Line(10, 1), Line(0, 2), 11),  # equal at 10, less from 11 on
        (Line(10.5, 1), Line(0, 2), 11),
        (Line(0, 2), Line(10, 1), math.inf),  # less below 10, not from some number on
        (Line(1, 1), Line(2, 2), 1),
        (Line(2, 1), Line(1, 1), math.inf),
        (Line(1, 1), Line(2, 1), 1),
        (Line(1, 1), Line(1, 1), math.inf),
        (Line(1, 1), Line(1, 2), 1),
    ],
)
def test_break_even(ours: Line, other: Line, questions: float) -> None:
    assert break_even(ours, other) == questions
    for number in range(1, 40):
        less = ours.read + ours.question * number < other.read + other.question * number
        assert less is (number >= questions) or questions == math.inf


def test_the_summary_takes_medians_and_says_how_sure_it_is() -> None:
    def rounds(read: float, question: float) -> dict[int, list[tuple[float, float]]]:
        noise = (0.9, 1.0, 1.0, 1.0, 5.0)  # one slow moment
        return {n: [(read * f, question * n * f) for f in noise] for n in (1, 2, 8)}

    summary = Summary({"slow": rounds(0, 2), "fast": rounds(9, 1)}, 0.95, seed=0)
    assert (summary.read("fast").value, summary.question("fast").value) == pytest.approx((9, 1))
    assert summary.total("fast", 8).value == 17
    assert summary.total("slow", 2).low <= 4 <= summary.total("slow", 2).high
    assert summary.break_even("fast", "slow").value == 10
    assert summary.break_even("slow", "fast").value == math.inf
    peaks = {"slow": {1: 10, 2: 10, 8: 10}, "fast": {1: 10, 2: 10, 8: 8000}}
    metrics = cost.metrics_of(summary, peaks)
    assert metrics["bytes_fast"].value == 8000
    assert "break_even_fast_over_slow" in metrics and "break_even_slow_over_fast" not in metrics
    crossings = {
        r["way"]: r["questions"]["value"] for r in cost.records_of(summary, peaks) if r["kind"] == "break_even"
    }
    assert crossings == {"fast": 10, "slow": "never"}


# ---- the command line


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("cost")
    return [f"loop.root={root}", *SHAPE, "tokens=40", "questions=[1,2,3]", "reread_most=2", "repeats=2"]


def test_a_study_is_a_run_like_any_other(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(cost.main, *words, "scale=cpu", "inner.steps=1", "warmup=1") == 0
    (mark,) = Path(words[0].removeprefix("loop.root=")).rglob("FINISHED")
    folder = mark.parent
    results = read(folder)
    assert (results.paper, results.experiment, results.method, results.scale) == (
        "reckoning", "run_time", "run_time", "cpu",
    )  # fmt: skip
    names = ("ft_icr", "ft_icr_cached", "ft_icr_batched", "reckoning", "reckoning_batched")
    for name in names:
        assert results.test[f"seconds_1_{name}"].value > 0 and results.test[f"seconds_1_{name}"].count == 2
        assert {f"seconds_read_{name}", f"seconds_question_{name}", f"bytes_{name}"} <= results.test.keys()
    records = [json.loads(line) for line in (folder / "cost.jsonl").read_text().splitlines()]
    points = {(r["way"], r["questions"]) for r in records if r["kind"] == "point"}
    assert points == {(name, n) for name in names for n in ((1, 2) if name == "ft_icr" else (1, 2, 3))}
    assert sum(r["kind"] == "break_even" for r in records) == 20
    assert yaml.safe_load((folder / "config.yaml").read_text())["inner"]["steps"] == 1
    before = (folder / "results.json").read_bytes()
    assert run_here(cost.main, *words, "scale=cpu", "inner.steps=1", "warmup=1") == 0
    assert (folder / "results.json").read_bytes() == before, "finished: skipped"


def test_no_comparison_of_methods_has_it(words: list[str]) -> None:
    runs, unfinished = read_runs(Path(words[0].removeprefix("loop.root=")), None, None)
    assert (len(runs), tables_of(runs), unfinished) == (1, [], [])


def test_a_sweep_of_it_in_processes_fills_a_published_table_and_runs_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, "-m", "reckoning.cost", "-m", "+sweep=run_time", "scale=cpu", "hydra/launcher=local"]
    program += ["tokens=64", "repeats=2", "warmup=0", "questions=[1,18]", f"loop.root={tmp_path}"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [*program, "runtime.threads=2", "hydra.sweeper.dry_run=true"], capture_output=True, text=True
    )
    assert "run_time: 2 runs, 0 finished" in again.stdout, "another number of threads takes other times"
    again = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "run_time: 2 runs, 2 finished" in again.stdout

    table = published.read("reckoning").table("run_time")
    runs, _ = read_runs(tmp_path, None, None)
    keys = {f"inner.steps={run.config['inner']['steps']}": run.keys for run in runs}
    joined = join(table, runs, lambda words: digest_of(keys[words[-1]]), "cpu")
    assert not joined.missing and all(cell.low < cell.value < cell.high for cell in joined.cells)
    text = render(grid_of(joined), "md")
    assert len({cost_block(run, Colours([table]), "a").title for run in runs}) == 2, "the report draws what it writes"
    assert "| N=1 | 1 question, RECKONING | 1.5 |" in text and "over its repeated measurements alone" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["shape.layers=0", "model=tiny", "tokens=1000"], "tokens=1000: the model reads at most 512"),
        (["questions=[3]"], "two different numbers from 1 on"),
        (["reread_most=1"], "reread_most=1: at least two of"),
        (["repeats=0"], "repeats=0: use 1 or more"),
        (["shape.heads=3"], "a width that the heads divide"),
        (["shape.vocabulary=3"], "shape.vocabulary=3: use 26"),
        (["threads=3"], "threads=3: set runtime.threads=3 in its place"),
        (["tokns=3"], "unknown key tokns: did you mean tokens?"),
    ],
)
def test_mistakes_are_named(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run_here(cost.main, *words, f"loop.root={tmp_path}", "scale=cpu", *more) == 2
    assert message in capsys.readouterr().err
