"""`python -m reckoning.data` and `python -m reckoning.model`: what they print, write and leave alone."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from common.bilevel import InnerConfig, OuterConfig, RuleName, Unroll
from common.schema import Device, Precision, RuntimeConfig, to_typed
from reckoning import data, memory, model
from reckoning.config import MethodConfig, ModelConfig, TrainConfig
from reckoning.proofwriter.recipe import read_records

EXPERIMENTS = Path(__file__).parents[1] / "conf" / "reckoning" / "experiment"
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
    code, out, _ = run(model.main, *words)
    assert code == 0
    for part in ("124,439,808 in 148 tensors", "592: one a tensor and step", "13.94 GB a problem"):
        assert part in out, part
    assert not (tmp_path / "runs").exists(), "this is no run"
    _, out, _ = run(model.main, *words, "inner.weights=['*.mlp.*']", "inner.steps=2")
    assert "in 48 tensors, inner.weights=['*.mlp.*']" in out and "96: one" in out


def test_model_without_a_configuration_names_the_way_out(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(model.main, "+experiment=proofwriter", f"model.name={tmp_path / 'empty'}")
    assert code == 2
    assert err.startswith("error: model.name=") and "scale=cpu" in err


def settings(inner: InnerConfig, problems: int = 2, dtype: Precision = Precision.float32) -> TrainConfig:
    runtime = RuntimeConfig(device=Device.cpu, dtype=dtype)
    return TrainConfig(inner=inner, outer=OuterConfig(batch_problems=problems), runtime=runtime)


@pytest.mark.parametrize(
    ("inner", "copies"),
    [
        (InnerConfig(steps=4), 1.2 + 6.7 * 4),
        (InnerConfig(steps=4, rule=RuleName.sgd), 1.2 + 1.7 * 4),
        (InnerConfig(steps=4, unroll=Unroll.truncate, keep=2), 1.2 + 6.7 * 2),
        (InnerConfig(steps=4, unroll=Unroll.truncate, keep=0, learned=False), 4),
        (InnerConfig(steps=4, unroll=Unroll.first_order), 1.2 + 3.0 * 4),
    ],
)
def test_the_estimate_is_the_measured_formula(inner: InnerConfig, copies: float) -> None:
    found = memory.estimate(settings(inner), parameters=1000, fast=500)
    assert (found.model, found.gradients, found.moments) == (4000, 4000, 8000)
    assert (found.graph, found.alive) == (round(copies * 2000), 1)
    assert found.total == 16000 + found.graph


def test_stacked_problems_are_alive_together_and_precision_counts() -> None:
    found = memory.estimate(settings(InnerConfig(stack=True), 5, Precision.float64), parameters=10, fast=10)
    assert found.alive == 5 and found.model == 80 and found.total == 320 + 5 * found.graph
    config = settings(InnerConfig())
    config.method = MethodConfig(name="ft_icr", learner="in_context")  # type: ignore[arg-type]
    assert memory.estimate(config, 1000, 0).total == 16000


def test_a_step_that_does_not_fit_comes_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "room", lambda device: (400 * (4 + 1) + 400 * 16, "a toy"))
    network = nn.Linear(9, 10, device=torch.device("meta"))  # 100 numbers, 400 bytes
    text = memory.report(network, settings(InnerConfig(steps=4, stack=True)))
    assert "no: a toy" in text
    assert [line.split()[1:-1] for line in text.splitlines() if line.startswith("  remedy")][:-1] == []


def test_the_skeleton_has_the_shapes_and_ties_of_the_model() -> None:
    tiny = ModelConfig(name="tiny", pretrained=False)
    network = model.skeleton(tiny)
    loaded = model.load(tiny, 1, device=torch.device("cpu"), dtype=torch.float32).network
    assert all(tensor.is_meta for tensor in network.parameters())
    shapes = [{name: tuple(p.shape) for name, p in each.named_parameters()} for each in (network, loaded)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("experiment", sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
def test_every_experiment_has_generated_problems_of_all_labels_in_every_split(experiment: str) -> None:
    import reckoning.train  # noqa: F401 - registers the schema

    words = [f"+experiment={experiment}", "scale=cpu", "data.theories={train:30,dev:12,test:12}", "data.cache=null"]
    with initialize_config_module("conf.reckoning", version_base="1.3"):
        config = to_typed(compose("config", overrides=words), TrainConfig)
    for split, problems in data.load(config.data).items():
        assert {question.answer for p in problems for question in p.questions} == {"true", "false", "unknown"}, split
