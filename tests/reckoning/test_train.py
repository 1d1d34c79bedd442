"""The training command from end to end: recorded losses, every method, sweeps, overrides, own YAML files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

from common.run.batches import Batches
from common.run.schema import flat, plain, to_typed
from reckoning import train
from reckoning.config import TrainConfig
from tests.runs import FILES, RECORD, metrics_of, only_run, run_here

# ---- what it computes

EXACT = ["runtime.dtype=float64", "model.dropout=0", "outer.steps=3", "loop.evaluate_every=0"]
RECORDED = {
    "reckoning": {
        "outer_loss": [16.093158761143677, 15.271456853000767, 14.88109776229792],
        "grad_norm": [31.16957944622421, 56.93032633375777, 51.89019741728081],
        "inner_loss_last": [3.932263815714784, 3.8184123266999093, 3.7709611391614586],
    },
    "ft_icr": {
        "outer_loss": [16.960308239239325, 16.068215037748878, 15.619278696951724],
        "grad_norm": [7.244935610652575, 3.7297465731488977, 3.912569075396933],
    },
}


@pytest.mark.parametrize("method", RECORDED)
def test_losses_are_the_recorded_ones(mini: Any, tmp_path: Path, method: str) -> None:
    assert mini.train(tmp_path, *EXACT, f"method={method}") == 0
    records = metrics_of(only_run(tmp_path), "train")
    for name, expected in RECORDED[method].items():
        assert [record[f"train/{name}"] for record in records] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", RECORDED)
def test_batches_of_a_step_are_one_larger_batch(mini: Any, tmp_path: Path, method: str) -> None:
    words = [*EXACT, f"method={method}"]
    assert mini.train(tmp_path / "two", *words, "outer.batch_problems=2", "outer.accumulation=2") == 0
    assert mini.train(tmp_path / "one", *words, "outer.batch_problems=4", "outer.accumulation=1") == 0
    two, one = (metrics_of(only_run(tmp_path / name), "train") for name in ("two", "one"))
    for name in ("outer_loss", "grad_norm"):
        assert [r[f"train/{name}"] for r in two] == pytest.approx([r[f"train/{name}"] for r in one], rel=1e-9)


def test_the_last_step_is_logged_and_evaluated_whatever_is_due(mini: Any, tmp_path: Path) -> None:
    assert mini.train(tmp_path, *EXACT, "loop.log_every=2", "evaluation.max_new_tokens=2") == 0
    assert [record["step"] for record in metrics_of(only_run(tmp_path), "train")] == [2, 3]
    assert [record["step"] for record in metrics_of(only_run(tmp_path), "dev")] == [0, 3]
    environment = json.loads((only_run(tmp_path) / "environment.json").read_text())
    assert environment["selection"] == {"metric": "accuracy", "higher_is_better": True}


METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "reckoning" / "method").glob("*.yaml"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_answers(mini: Any, tmp_path: Path, method: str) -> None:
    few = ["outer.steps=1", "data.limit={train:4,dev:1,test:1}", "evaluation.max_new_tokens=2", "loop.evaluate_every=0"]
    assert mini.train(tmp_path, f"method={method}", *few) == 0
    results = json.loads((only_run(tmp_path) / "results.json").read_text())
    assert results["method"] == method
    recited = method in ("reckoning", "ft_icr", "ft_icr_shuffled", "random_facts", "test_time")
    assert ("recall_exact" in results["test"]) is recited, "only who is trained to recite facts is asked for them"


@pytest.mark.parametrize("stack", ["true", "false"])
def test_half_precision_trains(mini: Any, tmp_path: Path, stack: str) -> None:
    words = ["runtime.dtype=bfloat16", f"inner.stack={stack}", "outer.steps=2", "evaluation.max_new_tokens=2"]
    assert mini.train(tmp_path, *words) == 0
    first, second = metrics_of(only_run(tmp_path), "train")
    assert first["train/outer_loss"] == pytest.approx(4 * 4.2, rel=0.2)
    assert first["rates/max"] != second["rates/max"] != 0.01, "rates move by less than bfloat16 can show"


def test_other_kernels_take_the_same_steps(mini: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.engine.cuda import foreach

    walked = []
    advance = foreach._adamw_advance
    monkeypatch.setattr(foreach, "_adamw_advance", lambda *given: walked.append(1) or advance(*given))
    assert mini.train(tmp_path, *EXACT, "runtime.kernels=foreach", "inner.unroll=recompute") == 0
    records = metrics_of(only_run(tmp_path), "train")
    assert walked and only_run(tmp_path).name.count("kernels") == 0
    for name, expected in RECORDED["reckoning"].items():
        assert [record[f"train/{name}"] for record in records] == pytest.approx(expected, rel=1e-6)


BRIEF = ["model.dropout=0", "outer.steps=2", "evaluation.max_new_tokens=2", "loop.evaluate_every=0"]


@pytest.mark.parametrize("method", RECORDED)
def test_products_in_bfloat16_train(mini: Any, tmp_path: Path, method: str) -> None:
    losses = []
    for autocast in ("false", "true"):
        root = tmp_path / autocast
        assert mini.train(root, *BRIEF, f"method={method}", f"runtime.autocast={autocast}") == 0
        losses.append([record["train/outer_loss"] for record in metrics_of(only_run(root), "train")])
    exact, rounded = losses
    assert rounded == pytest.approx(exact, rel=0.01) and rounded != exact


@pytest.mark.cuda
@pytest.mark.parametrize("setting", ["kernels=fused", "capture=true", "autocast=true"])
def test_every_cuda_key_trains_and_answers_on_a_gpu(mini: Any, tmp_path: Path, setting: str) -> None:
    if setting == "kernels=fused":
        pytest.importorskip("triton", reason="the fused kernels are Triton's, which is not installed")
    losses = []
    for words in ([], [f"runtime.{setting}"]):
        root = tmp_path / str(len(words))
        assert mini.train(root, *BRIEF, "runtime=gpu", *words) == 0
        losses.append([record["train/outer_loss"] for record in metrics_of(only_run(root), "train")])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_shortcut_rows_are_the_recorded_ones(mini: Any, tmp_path: Path) -> None:
    assert mini.train(tmp_path, "method=shortcuts") == 0
    folder = only_run(tmp_path)
    test = json.loads((folder / "results.json").read_text())["test"]
    shown = {name: interval["value"] for name, interval in test.items()}
    third, two_thirds = pytest.approx(1 / 3), pytest.approx(2 / 3)
    names = ("chance", "majority", "polarity", "knowledge", "knowledge_and_polarity", "copy")
    assert [shown[f"accuracy_{name}"] for name in names] == [third, third, two_thirds, third, two_thirds, third]
    assert (test["accuracy_chance"]["low"], test["accuracy_chance"]["high"]) == (1 / 3, 1 / 3)
    (record,) = metrics_of(folder, "test")
    assert record["test/accuracy_polarity"] == shown["accuracy_polarity"]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 12 and predictions[0]["scores"]["accuracy_polarity"] == [1, 1]


def test_a_finished_folder_holds_everything(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()} - {".lock", "evaluation-test.json"}
    assert names == FILES
    assert [record["step"] for record in metrics_of(trained, "dev")] == [0, 2, 4]
    record = json.loads((trained / "metrics.jsonl").read_text().splitlines()[1])
    assert set(record) == RECORD
    (test,) = metrics_of(trained, "test")
    results = json.loads((trained / "results.json").read_text())
    assert test["test/accuracy"] == results["test"]["accuracy"]["value"]
    assert results["test"]["accuracy"]["count"] == len((trained / "predictions.jsonl").read_text().splitlines()) == 12


def test_the_embedded_scale_trains_the_same_way_twice(tmp_path: Path) -> None:
    words = [
        "+experiment=proofwriter_repaired",
        "scale=cpu",
        "model.pretrained=false",
        "outer.steps=2",
        "loop.log_every=1",
    ]
    words += ["data.theories={train:20,dev:2,test:2}", "outer.batch_problems=4", "evaluation.max_new_tokens=4"]
    for name in "ab":
        assert run_here(train.main, *words, f"loop.root={tmp_path / name}") == 0
    for split in ("dev", "train", "test"):
        assert metrics_of(only_run(tmp_path / "a"), split) == metrics_of(only_run(tmp_path / "b"), split)


@pytest.mark.parametrize("data", ["natlang", "depth5_choices"])
def test_real_files_train_with_the_same_command(data_root: Path, tmp_path: Path, data: str) -> None:
    words = ["+experiment=proofwriter", "scale=cpu", f"data={data}", f"data.root={data_root}", "model.pretrained=false"]
    words += ["data.limit={train:8,dev:3,test:3}", "outer.steps=1", "outer.batch_problems=2", "inner.steps=1"]
    assert run_here(train.main, *words, "evaluation.max_new_tokens=3", f"loop.root={tmp_path}") == 0
    assert json.loads((only_run(tmp_path) / "results.json").read_text())["test"]["accuracy"]["count"] >= 3


def test_first_order_and_truncated_variants_train(mini: Any, tmp_path: Path) -> None:
    losses = {}
    for name, words in {
        "exact": [],
        "first": ["inner.unroll=first_order"],
        "last": ["inner.unroll=truncate", "inner.keep=1"],
    }.items():
        # the same four problems in every step
        words += ["data.limit.train=4", "outer.steps=4", "outer.lr=0.003", "inner=sgd", "inner.lr=0.3"]
        assert mini.train(tmp_path / name, *EXACT, *words) == 0
        losses[name] = [record["train/outer_loss"] for record in metrics_of(only_run(tmp_path / name), "train")]
    assert all(values[-1] < values[0] for values in losses.values())
    assert len({values[0] for values in losses.values()}) == 1, "the first loss knows no gradient yet"
    assert len({values[1] for values in losses.values()}) == 3


def test_patience_ends_a_run_early_also_across_a_restart(
    mini: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["outer.steps=12", "outer.lr=0", "outer.rates_lr=0", "evaluation.patience=3", "loop.evaluate_every=1"]
    words += ["loop.save_every=1", "outer.batch_problems=1", "outer.accumulation=1"]
    assert mini.train(tmp_path / "straight", *words) == 0
    draw = Batches.__getitem__

    def crash(self: Batches, number: int) -> Any:
        if number == 2:  # in the third step
            raise RuntimeError("power cut")
        return draw(self, number)

    monkeypatch.setattr(Batches, "__getitem__", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        mini.train(tmp_path / "cut", *words)
    monkeypatch.undo()
    assert mini.train(tmp_path / "cut", *words) == 0
    for name in ("straight", "cut"):
        assert [record["step"] for record in metrics_of(only_run(tmp_path / name), "dev")] == [0, 1, 2, 3, 4]


def test_sweepers_are_given_the_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
    monkeypatch.setattr(train.HydraConfig, "get", staticmethod(lambda: runtime))
    with initialize_config_module("conf.reckoning", version_base="1.3"):
        cfg = compose("config", ["scale=cpu"])
    for values, expected in (
        ({"accuracy": 0.5, "accuracy@answer_yes": 0.9, "recall_exact": 1.0}, 0.5),
        ({"accuracy_chance": 0.3, "accuracy_polarity": 0.6}, 0.6),
    ):
        test = {name: SimpleNamespace(value=value) for name, value in values.items()}
        monkeypatch.setattr(train, "train", lambda config, folder, test=test: SimpleNamespace(test=test))
        assert train.main.__wrapped__(cfg) == expected  # type: ignore[attr-defined]


# ---- the command line


def test_a_sweep_over_seeds_is_a_folder_a_seed(mini: Any, tmp_path: Path) -> None:
    assert mini.train(tmp_path, "-m", "seed=1,2,3", "outer.steps=1", "evaluation.max_new_tokens=2") == 0
    folders = [mark.parent for mark in sorted(tmp_path.rglob("FINISHED"))]
    assert [folder.name[-6:] for folder in folders] == ["seed-1", "seed-2", "seed-3"]
    assert len({metrics_of(folder, "train")[0]["train/outer_loss"] for folder in folders}) == 3


def test_the_launcher_changes_no_number(mini: Any, tmp_path: Path) -> None:
    sweep = ["-m", "seed=1,2", "method=shortcuts"]  # no network: the other processes start in half the time
    assert mini.train(tmp_path / "basic", *sweep) == 0
    assert mini.train(tmp_path / "local", *sweep, "hydra/launcher=local", "hydra.launcher.n_jobs=2") == 0
    runs = [sorted((tmp_path / name).rglob("FINISHED")) for name in ("basic", "local")]
    assert len(runs[0]) == 2
    for basic, local in zip(*runs, strict=True):
        assert basic.parent.name == local.parent.name
        assert metrics_of(basic.parent, "test") == metrics_of(local.parent, "test")


def test_cfg_job_shows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(train.main, "+experiment=proofwriter", "scale=cpu", "--cfg", "job") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["experiment"] == "proofwriter" and shown["model"]["name"] == "tiny"
    labels = {f"data.labels.{label}" for label in ("true", "false", "unknown")}
    assert set(flat(shown)) == (set(flat(plain(TrainConfig()))) - {"data.labels"}) | labels


def composed(*words: str) -> TrainConfig:
    with initialize_config_module("conf.reckoning", version_base="1.3"):
        return to_typed(compose("config", list(words)), TrainConfig)


def written(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("scale", ["paper", "cpu"])
def test_any_leaf_can_be_overridden(scale: str) -> None:
    base = ["+experiment=proofwriter", f"scale={scale}"]
    before = composed(*base)
    leaves = flat(plain(before))
    assert len(leaves) > 90
    lines = "budget"  # a list of mappings, which the command line has no words for
    words = [f"{key}={written(value)}" for key, value in leaves.items() if key != lines]  # an error names what fails
    assert composed(*base, *words) == before


def test_own_model_data_and_method_need_one_yaml_file_each_and_no_code(mini: Any, tmp_path: Path) -> None:
    # data and model of the miniature are such files already
    conf = tmp_path / "conf"
    shutil.copytree(mini.folder / "conf", conf)
    (conf / "method").mkdir()
    (conf / "method" / "mine.yaml").write_text("defaults: [reckoning]\nname: mine\ntitle: Mine\ntarget: single\n")
    words = mini.words(tmp_path / "out", "method=mine", "outer.steps=1")
    words[words.index("--config-dir") + 1] = str(conf)
    assert run_here(train.main, *words) == 0
    results = json.loads((only_run(tmp_path) / "results.json").read_text())
    assert results["method"] == "mine" and "recall_exact" not in results["test"]


def test_a_run_without_overrides_has_a_folder_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(train.main, "+experiment=proofwriter", "--cfg", "hydra") == 0
    folder = yaml.safe_load(capsys.readouterr().out)["hydra"]["run"]["dir"]
    assert folder == "${loop.root}/${paper:}/${experiment}/${run_name:}"


def test_a_single_run_finds_its_finished_twin_says_where_and_is_forced_by_a_key(
    mini: Any, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = Path(shutil.copytree(trained, tmp_path / "reckoning" / "table" / "its name"))
    assert mini.train(tmp_path) == 0
    said = capsys.readouterr().out
    assert f"{twin} has a finished run of the same settings; loop.again=true trains again, in " in said
    assert [mark.parent for mark in tmp_path.rglob("FINISHED")] == [twin]
    assert mini.train(tmp_path, "loop.again=true") == 0
    assert len(list(tmp_path.rglob("FINISHED"))) == 2


def test_a_finished_run_is_skipped(mini: Any, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    assert mini.train(trained.parents[2]) == 0
    assert f"{trained} is finished: skipped" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before
