"""`python -m reckoning.data` and `python -m reckoning.model`: what they print, write and leave alone."""

import gzip
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch._subclasses.fake_tensor import FakeTensor

from common.engine.settings import InnerConfig, OuterConfig, Unroll
from common.language import model
from common.language.config import ModelConfig
from common.language.sizes import Shape, cost_of, estimate, remedies
from common.run.schema import Device, Precision, RuntimeConfig, to_typed
from reckoning import data
from reckoning import model as sizes
from reckoning import sizes as memory
from reckoning.config import MethodConfig, TrainConfig
from reckoning.proofwriter.recipe import read_records
from tests.reckoning.miniature import make_network

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "conf" / "reckoning" / "experiment"
SMALL = ["scale=cpu", "data.theories={train:6,dev:2,test:2}", "runtime=cpu"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command with its runs folder below `tmp_path`; returns exit code, output and errors."""

    def call(main, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", f"loop.root={tmp_path / 'runs'}", *words])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def gpt2(folder: Path) -> Path:
    """A model folder that holds a configuration and nothing else: GPT-2 small."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    return folder


def test_data_shows_counts_an_example_and_shortcuts(run, tmp_path: Path) -> None:
    code, out, _ = run(data.main, "+experiment=proofwriter_repaired", *SMALL)
    assert code == 0
    for part in (
        "questions",
        "train and test",
        "Inner loop: 6 rows",
        "⟦",
        "FT-ICR",
        "chance",
        "majority",
        "bag_of_words",
    ):
        assert part in out, part
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["data"], "only the cache: this is no run"


def test_data_writes_generated_theories_that_the_official_reader_reads(run, tmp_path: Path) -> None:
    words = ["+experiment=proofwriter_repaired", *SMALL, f"data.export={tmp_path / 'out'}"]
    assert run(data.main, *words)[0] == 0
    sizes = {
        split: len(list(read_records(tmp_path / "out" / f"meta-{split}.jsonl"))) for split in ("train", "dev", "test")
    }
    assert sizes == {"train": 6, "dev": 2, "test": 2}


def test_data_reads_own_lines_and_does_without_a_tokenizer(run, tmp_path: Path) -> None:
    lines = [
        {"facts": [f"{name} is {word}.", "Big people are red."], "question": f"{name} is red?", "answer": answer}
        for name in ("Tom", "Ann", "Bob", "Eve")
        for word, answer in (("big", "yes"), ("small", "no"))
    ]
    with gzip.open(tmp_path / "my.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    own = ["+experiment=proofwriter", "data=jsonl", f"data.files.train={tmp_path}/my.jsonl.gz"]
    own.append(f"model.name={gpt2(tmp_path / 'model')}")
    code, out, err = run(data.main, *own)
    assert code == 0, err
    assert "the text alone, without tokens: model.name=" in out
    assert "fact_1: ⟦Big people are red⟧" in out
    code, _, err = run(data.main, *own, f"data.export={tmp_path}/out")
    assert code == 2 and "only generated theories are written" in err


def test_model_tells_sizes_without_weights(run, tmp_path: Path) -> None:
    words = ["+experiment=proofwriter", "runtime=cpu", f"model.name={gpt2(tmp_path / 'model')}"]
    code, out, _ = run(sizes.main, *words)
    assert code == 0
    for part in ("124,439,808 in 148 tensors", "592: one a tensor and step", "20 facts of 24 tokens"):
        assert part in out, part
    assert not (tmp_path / "runs").exists(), "this is no run"
    _, out, _ = run(sizes.main, *words, "inner.weights=['*.mlp.*']", "inner.steps=2")
    assert "in 48 tensors, inner.weights=['*.mlp.*']" in out and "96: one" in out


def test_model_without_a_configuration_names_the_way_out(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(sizes.main, "+experiment=proofwriter", f"model.name={tmp_path / 'empty'}")
    assert code == 2
    assert err.startswith("error: model.name=") and "scale=cpu" in err


def settings(inner: InnerConfig, problems: int = 2, dtype: Precision = Precision.float32) -> TrainConfig:
    runtime = RuntimeConfig(device=Device.cpu, dtype=dtype)
    return TrainConfig(inner=inner, outer=OuterConfig(batch_problems=problems), runtime=runtime)


TINY = ModelConfig(name="tiny", pretrained=False)
SHAPE = Shape(rows=4, row_tokens=10, questions=2, question_tokens=12, source="assumed here")


def network_of() -> Any:
    return make_network(512, width=64)


def report_of(config: TrainConfig) -> dict[str, list[str]]:
    """The report's lines: name -> texts."""
    found: dict[str, list[str]] = {}
    for line in memory.report(network_of(), config, SHAPE).splitlines():
        name, _, text = line.strip().partition("  ")
        found.setdefault(name, []).append(text.strip())
    return found


def test_the_report_has_its_lines_and_they_add_up() -> None:
    config = settings(InnerConfig(steps=3, unroll=Unroll.recompute, keep=1, micro_batch=2))
    lines = report_of(config)
    assert list(lines) == [
        "model", "parameters", "fast weights", "inner rates", "inner loop", "", "memory of one outer step",
        "outer gradients", "outer AdamW moments", "in all", "fits",
    ]  # fmt: skip
    network = network_of()
    count, tensors = sum(w.numel() for w in network.parameters()), len(list(network.parameters()))
    assert lines["parameters"] == [f"{count:,} in {tensors} tensors"]
    assert lines["fast weights"] == [f"{count:,} in {tensors} tensors, inner.weights=['*']"]
    assert lines["inner rates"] == [f"{3 * tensors}: one a tensor and step, start 3e-05, raw"]
    plan, loop = lines["inner loop"]
    assert plan == "adamw, 3 steps, unroll=recompute, keep=1, micro-batches of 2"
    assert loop.endswith("each problem goes backward before the next begins")
    sizes = "4 facts of 10 tokens, 2 questions of 12 (assumed here)"
    assert lines["memory of one outer step"] == [f"estimate in float32; {sizes}"]
    needed = estimate(memory.step_of(network, config, SHAPE))
    assert needed.total == needed.model + needed.gradients + needed.moments + needed.loop
    assert (needed.model, needed.gradients, needed.moments) == (4 * count, 4 * count, 8 * count)
    parts = (needed.model, needed.gradients, needed.moments, needed.loop, needed.total)
    shown = [lines["model"][1], *lines["outer gradients"], *lines["outer AdamW moments"], loop, *lines["in all"]]
    for size, text in zip(parts, shown, strict=True):
        assert float(text.split()[0]) == pytest.approx(size / 1e6, abs=0.051) and text.split()[1] == "MB"
    assert lines["fits"][0].startswith("yes: ")


def test_the_way_that_auto_chooses_is_shown() -> None:
    text = report_of(settings(InnerConfig(unroll=Unroll.auto)))["inner loop"][0]
    assert text == "adamw, 4 steps, unroll=stored (inner.unroll=auto)"
    text = report_of(settings(InnerConfig(unroll=Unroll.auto, memory_gb=1e-6)))["inner loop"][0]
    assert text == "adamw, 4 steps, unroll=recompute, keep=0 (inner.unroll=auto)"


def test_a_skeleton_costs_what_the_network_costs() -> None:
    loaded = model.load(TINY, 1, device=torch.device("cpu"), dtype=torch.float32).network
    for inner in (InnerConfig(), InnerConfig(weights=["*.mlp.*"])):
        costs = [cost_of(memory.step_of(network, settings(inner), SHAPE)) for network in (model.skeleton(TINY), loaded)]
        assert costs[0] == costs[1]
        assert (costs[0].others > 0) is (inner.weights != ["*"]), "what learns without being fast counts"


def test_stacked_problems_are_alive_together_and_precision_counts() -> None:
    network = network_of()
    loops = [
        estimate(memory.step_of(network, settings(InnerConfig(stack=True), count), SHAPE)).loop for count in (1, 5)
    ]
    assert loops[1] == pytest.approx(5 * loops[0], rel=0.05)
    alone = [estimate(memory.step_of(network, settings(InnerConfig(), count), SHAPE)).loop for count in (1, 5)]
    assert alone[0] == alone[1], "each problem goes backward before the next begins"
    wide = network_of().double()
    single, double = (estimate(memory.step_of(each, settings(InnerConfig()), SHAPE)) for each in (network, wide))
    assert (double.model, double.gradients, double.moments) == (2 * single.model, 2 * single.model, 4 * single.model)
    assert double.loop == pytest.approx(2 * single.loop, rel=0.05)


def test_the_in_context_learner_has_no_inner_loop_and_all_its_problems_at_once() -> None:
    network, config = network_of(), settings(InnerConfig())
    config.method = MethodConfig(name="ft_icr", learner="in_context")  # type: ignore[arg-type]
    found = estimate(memory.step_of(network, config, SHAPE))
    assert found.unroll is Unroll.none
    assert found.loop < estimate(memory.step_of(network, settings(InnerConfig(steps=1)), SHAPE)).loop
    lines = report_of(config)
    assert not {"fast weights", "inner rates", "inner loop"} & lines.keys()
    assert lines["outer loss"][0].endswith("activations of 2 problems")
    config.outer.batch_problems = 8
    assert estimate(memory.step_of(network, config, SHAPE)).loop > found.loop


def test_a_step_that_does_not_fit_comes_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those alone that fit, with the size that each comes to; those that change no number come first."""
    config = settings(InnerConfig(steps=4, stack=True))
    network = network_of()
    total = estimate(memory.step_of(network, config, SHAPE)).total
    monkeypatch.setattr("common.language.sizes.room", lambda device: (total - 1, "a toy"))
    lines = report_of(config)
    assert lines["fits"][0].startswith("no: a toy (cpu) has ")
    settings_of = [text.rpartition(": ") for text in lines["remedy"][:-1]]
    assert [words for words, _, _ in settings_of] == [
        "inner.stack=false inner.unroll=recompute (the same numbers)",
        "inner.stack=false inner.unroll=recompute inner.micro_batch=1 (the same numbers)",
        "inner.stack=false inner.unroll=truncate inner.keep=1 inner.micro_batch=1 (the last step exactly)",
    ]
    assert all(float(size.removesuffix(" MB")) < total / 1e6 for _, _, size in settings_of)
    assert lines["remedy"][-1] == "fewer inner.weights, a smaller model.name, a larger device, or scale=cpu"
    leaner = estimate(memory.step_of(network, settings(InnerConfig(steps=4, unroll=Unroll.recompute)), SHAPE)).total
    assert settings_of[0][2] == f"{leaner / 1e6:.1f} MB"
    assert remedies(memory.step_of(network, settings(InnerConfig(steps=1)), SHAPE), there=1) == lines["remedy"][-1:]


def test_the_skeleton_has_the_shapes_and_ties_of_the_model() -> None:
    network = model.skeleton(TINY)
    loaded = model.load(TINY, 1, device=torch.device("cpu"), dtype=torch.float32).network
    assert all(isinstance(tensor, FakeTensor) for tensor in network.parameters())
    shapes = [{name: tuple(p.shape) for name, p in each.named_parameters()} for each in (network, loaded)]
    assert shapes[0] == shapes[1]


def test_every_command_has_a_short_name_and_every_name_a_command() -> None:
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = {
        f"{path.parent.name}-{path.stem}": f"{path.parent.name}.{path.stem}:main"
        for paper in ("reckoning", "perk", "fal", "slowfast_vgen")
        for path in (ROOT / paper).glob("*.py")
        if "@entry(" in path.read_text()
    }
    assert names == commands


GENERATED = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml") if path.stem != "folio")  # which needs its files


@pytest.mark.parametrize("experiment", GENERATED)
def test_every_experiment_has_generated_problems_of_all_labels_in_every_split(experiment: str) -> None:
    import reckoning.train  # noqa: F401 - registers the schema

    words = [f"+experiment={experiment}", "scale=cpu", "data.theories={train:30,dev:12,test:12}", "data.cache=null"]
    with initialize_config_module("conf.reckoning", version_base="1.3"):
        config = to_typed(compose("config", overrides=words), TrainConfig)
    for split, problems in data.load(config.data).items():
        answers = {question.answer for p in problems for question in p.questions}
        if config.data.labels is None:  # any word: a small split need not have them all
            assert len(answers) > 8, split
        else:
            assert answers == {"true", "false", "unknown"}, split
