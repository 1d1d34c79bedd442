"""From a composed configuration to typed objects: what is refused, and what the message says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from common.engine.settings import Kernels
from common.errors import UserError
from common.run.keys import closest, valid_keys
from common.run.schema import (
    Device,
    LoopConfig,
    Precision,
    RuntimeConfig,
    TrackerConfig,
    TrackerMode,
    TrackerName,
    flat,
    plain,
    to_typed,
)


@dataclass
class Inner:
    steps: int = 4
    lr: float = 0.1
    weights: list[str] = field(default_factory=lambda: ["*"])


@dataclass
class Template:
    text: str = ""


@dataclass
class Config:
    seed: int = 0
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    labels: dict[str, str] | None = None
    templates: list[Template] = field(default_factory=list)
    named: dict[str, Template] = field(default_factory=dict)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Needs:
    path: str = "???"


def typed(**values: Any) -> Config:
    return to_typed(OmegaConf.create(values), Config)


def test_a_plain_configuration_becomes_the_dataclass_with_its_types() -> None:
    got = typed(seed="3", inner={"lr": 1}, runtime={"device": "cuda"}, labels={"a": "b"}, templates=[{"text": "x"}])
    assert got == Config(
        seed=3, inner=Inner(lr=1.0), labels={"a": "b"}, templates=[Template("x")], runtime=RuntimeConfig(Device.cuda)
    )
    assert isinstance(got.inner.lr, float)
    assert to_typed(OmegaConf.structured(Config), Config) == Config()


def test_interpolations_are_resolved() -> None:
    assert typed(seed=5, inner={"steps": "${seed}"}).inner.steps == 5
    with pytest.raises(UserError, match="inner.steps: .*sed"):
        typed(inner={"steps": "${sed}"})


@pytest.mark.parametrize(
    "values, key, hint",
    [
        ({"inner": {"stps": 1}}, "inner.stps", "did you mean inner.steps"),
        ({"sed": 1}, "sed", "did you mean seed"),
        ({"lr": 1}, "lr", "did you mean inner.lr"),
        ({"inner": {"zzzzzz": 1}}, "inner.zzzzzz", "remove it"),
        ({"other": {"stesp": 1}}, "other.stesp", "did you mean other.steps"),
        ({"templates": [{}, {"txt": ""}]}, "templates[1].txt", "did you mean templates.text"),
        ({"named": {"a": {"txt": ""}}}, "named.a.txt", "did you mean named.text"),
        ({"runtime": {"thread": 1}}, "runtime.thread", "did you mean runtime.threads"),
    ],
)
def test_an_unknown_key_is_named_in_full_with_the_closest_that_exists(values: Any, key: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        typed(**values)
    message = str(caught.value)
    assert f"unknown key {key}: {hint}" in message and "--cfg job" in message and "\n" not in message


def test_a_key_added_to_a_typed_node_is_refused_too() -> None:
    cfg = OmegaConf.structured(Config)
    OmegaConf.update(cfg, "inner.new", 1, force_add=True)  # what `+inner.new=1` does
    with pytest.raises(UserError, match=r"unknown key inner\.new"):
        to_typed(cfg, Config)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"seed": "x"}, "seed: Value 'x' .* could not be converted to Integer; seed takes a whole number"),
        ({"inner": {"lr": "fast"}}, "inner.lr: .*; inner.lr takes a number"),
        ({"inner": {"weights": "all"}}, r"inner.weights: .*; inner.weights takes a list \(text\)"),
        ({"runtime": {"deterministic": "perhaps"}}, "runtime.deterministic: .* takes true or false"),
        ({"runtime": {"dtype": "float16"}}, "runtime.dtype: .*one of float32, float64, bfloat16"),
        ({"runtime": {"device": None}}, "runtime.device: .*one of auto, cpu, cuda"),
        ({"inner": 3}, "inner=3: a group of keys is needed .steps, lr"),
    ],
)
def test_a_wrong_type_names_the_key_and_what_it_takes(values: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        typed(**values)


def test_a_missing_value_is_asked_for() -> None:
    with pytest.raises(UserError, match="path has no value: give one, as path=... on the command line"):
        to_typed(OmegaConf.structured(Needs), Needs)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RuntimeConfig(threads=-1), "runtime.threads=-1: use 0"),
        (
            lambda: RuntimeConfig(autocast=True, dtype=Precision.bfloat16),
            "runtime.autocast=true with runtime.dtype=bfloat16: .*; use runtime.dtype=float32, or",
        ),
        (
            lambda: RuntimeConfig(capture=True, kernels=Kernels.fused),
            "runtime.capture=true with runtime.kernels=fused: .*; use runtime.kernels=foreach, or",
        ),
        (lambda: LoopConfig(keep=0), "loop.keep=0: at least 1"),
        (lambda: LoopConfig(log_every=-2), r"loop.log_every=-2: use 0 \(switched off\)"),
        (lambda: LoopConfig(save_seconds=-0.5), "loop.save_seconds=-0.5"),
        (lambda: LoopConfig(save_seconds=float("nan")), "loop.save_seconds=nan"),
        (lambda: LoopConfig(save_seconds=float("inf")), "loop.save_seconds=inf"),
        (lambda: typed(runtime={"threads": -1}), "runtime.threads=-1: use 0"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_plain_data_survive_yaml_and_give_the_same_objects_again() -> None:
    import yaml

    config = Config(name="é", runtime=RuntimeConfig(Device.cpu, Precision.bfloat16), labels={"a": "b"})
    data = plain(config)
    assert data["runtime"]["dtype"] == "bfloat16" and type(data["runtime"]["dtype"]) is str
    assert yaml.safe_load(yaml.safe_dump(data)) == data
    assert to_typed(OmegaConf.create(data), Config) == config
    assert plain(OmegaConf.structured(config)) == data
    assert plain({"path": Path("a"), "pair": (1, 2)}) == {"path": "a", "pair": [1, 2]}


def test_flat_and_valid_keys_speak_the_command_lines_language() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": {}, "e": [1]}) == {"a.b.c": 1, "d": {}, "e": [1]}
    keys = valid_keys(Config)
    assert {"seed", "inner", "inner.lr", "runtime.dtype", "templates.text"} <= set(keys)
    assert closest("runtime.dtyp", keys) == "runtime.dtype"
    assert closest("qqqq", keys) is None


@pytest.mark.parametrize("name", list(TrackerName))
def test_the_shared_tracker_files_fit_their_dataclass(name: str) -> None:
    file = Path(__file__).parents[3] / "conf" / "common" / "tracker" / f"{name}.yaml"
    got = to_typed(OmegaConf.create(file.read_text()), TrackerConfig)  # type: ignore[arg-type]
    assert (got.name, got.mode) == (TrackerName[name], TrackerMode.auto)


@pytest.mark.parametrize("name, device", [("cpu", Device.cpu), ("gpu", Device.cuda)])
def test_the_shared_runtime_files_fit_their_dataclass(name: str, device: Device) -> None:
    file = Path(__file__).parents[3] / "conf" / "common" / "runtime" / f"{name}.yaml"
    got = to_typed(OmegaConf.create(file.read_text()), RuntimeConfig)  # type: ignore[arg-type]
    assert got.device is device and got.deterministic
