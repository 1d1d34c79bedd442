"""Configuration shared by every paper, and the one way from a composed configuration to typed objects."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.engine.settings import Kernels
from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED, UNNAMED, fields_of
from common.run.keys import explain, unknown_key, unknown_keys, valid_keys

T = TypeVar("T")


class Device(StrEnum):
    """Where tensors live."""

    auto = "auto"
    """CUDA where there is one, else the CPU."""
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Type of weights and activations; the members are named as in torch."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"


class TrackerName(StrEnum):
    """Where metrics go besides metrics.jsonl."""

    none = "none"
    wandb = "wandb"
    tensorboard = "tensorboard"
    trackio = "trackio"


class TrackerMode(StrEnum):
    """How W&B is used."""

    auto = "auto"
    """Online with an API key (WANDB_API_KEY or netrc), else offline."""
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclasses.dataclass
class RuntimeConfig:
    """Where a run computes: conf/common/runtime.

    Device, dtype and autocast are hashed: dropout draws other masks on CUDA, and bfloat16 rounds. What is not changes
    the order of float sums, the last bits only, and a requeued job may get other cores.
    """

    device: Device = Device.auto
    dtype: Precision = Precision.float32
    threads: int = dataclasses.field(default=1, metadata=UNHASHED)
    """CPU threads of torch per process; 0 leaves torch's own choice. Small models are fastest with one."""
    deterministic: bool = dataclasses.field(default=True, metadata=UNHASHED)
    """Reproducible kernels only; False may be faster on CUDA, and a continued run is then no longer bit-identical."""
    kernels: Kernels = dataclasses.field(default=Kernels.auto, metadata=UNHASHED)
    """What makes the updates of the inner rule: other kernels round in another order."""
    capture: bool = dataclasses.field(default=False, metadata=UNHASHED)
    """CUDA: record the inner loop at test time as a graph, and replay the same kernels while shapes stay the same."""
    autocast: bool = dataclasses.field(default=False, metadata=HASHED_IF_SET)
    """Multiply matrices in bfloat16 inside losses; weights, fast ones too, gradients and moments stay float32."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a negative number of threads, or two keys that contradict each other.
        """
        if self.threads < 0:
            raise UserError(f"runtime.threads={self.threads}: use 0 (torch's own choice) or more")
        if self.autocast and self.dtype is not Precision.float32:
            raise UserError(
                f"runtime.autocast=true with runtime.dtype={self.dtype}: it rounds float32 weights for their products; "
                "use runtime.dtype=float32, or runtime.autocast=false"
            )
        if self.capture and self.kernels is Kernels.fused:
            raise UserError(
                "runtime.capture=true with runtime.kernels=fused: a graph cannot hold the kernels' table of addresses, "
                "which comes from the CPU; use runtime.kernels=foreach, or runtime.capture=false"
            )


@dataclasses.dataclass
class TrackerConfig:
    """Mirror of metrics.jsonl: conf/common/tracker."""

    name: TrackerName = TrackerName.none
    mode: TrackerMode = TrackerMode.auto
    """W&B only: the others know no network."""
    project: str = "innerloop"
    """W&B and Trackio; TensorBoard's files lie in the run folder."""
    entity: str | None = None
    """W&B user or team; null is the account's default."""
    tags: list[str] = dataclasses.field(default_factory=list)
    """W&B only: besides paper, experiment, method, scale and seed, which every run carries."""
    machine: bool = False
    """W&B and Trackio: also host, absolute paths and the whole command line, and W&B's own record of the process."""

    def __post_init__(self) -> None:
        """Refuse a key that this tracker would ignore.

        Raises:
            UserError: it was changed from its default.
        """
        known = {
            TrackerName.wandb: ("mode", "project", "entity", "tags", "machine"),
            TrackerName.trackio: ("project", "machine"),
        }
        defaults: dict[str, Any] = {
            "mode": TrackerMode.auto, "project": "innerloop", "entity": None, "tags": [], "machine": False,
        }  # fmt: skip
        for key, default in defaults.items():
            value = getattr(self, key)
            if value != default and key not in known.get(self.name, ()):
                takers = " or ".join(f"tracker={name}" for name, keys in known.items() if key in keys)
                raise UserError(
                    f"tracker.{key}={value} changes nothing with tracker={self.name}: leave it, or use {takers}"
                )


@dataclasses.dataclass
class LoopConfig:
    """When a run logs, evaluates and saves. Steps are outer steps; the last step always counts as due."""

    root: str = dataclasses.field(default="runs", metadata=UNHASHED)
    """Folder of all run folders."""
    log_every: int = dataclasses.field(default=10, metadata=UNHASHED)
    """Training metrics every so many steps; 0 never."""
    evaluate_every: int = 100
    """Dev evaluation, which selects the model, every so many steps; 0 only after the last one."""
    save_every: int = dataclasses.field(default=0, metadata=UNHASHED)
    """A checkpoint every so many steps; 0 leaves it to save_seconds."""
    save_seconds: float = dataclasses.field(default=120.0, metadata=UNHASHED)
    """A checkpoint when this much time has passed since the last; 0 leaves it to save_every."""
    keep: int = dataclasses.field(default=2, metadata=UNHASHED)
    """Newest checkpoints kept; the best one stays besides."""
    lock: bool = dataclasses.field(default=True, metadata=UNHASHED)
    """Refuse a folder on a file system without locks, where nobody would notice two processes in it."""
    again: bool = dataclasses.field(default=False, metadata=UNHASHED)
    """Train although a run below `root` is finished with the same settings, in another folder."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a negative or endless interval, or no checkpoint to keep.
        """
        for key in ("log_every", "evaluate_every", "save_every", "save_seconds"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"loop.{key}={getattr(self, key)}: use 0 (switched off) or more")
        if self.keep < 1:
            raise UserError(f"loop.keep={self.keep}: at least 1 checkpoint is needed to continue from")


@dataclasses.dataclass
class RunConfig:
    """What every run reads, whatever it is a run of."""

    experiment: str = dataclasses.field(default="none", metadata=UNNAMED)
    """Set by the experiment file; its runs have a folder of their own."""
    scale: str = "paper"
    """Set by the scale file."""
    seed: int = 0
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig, metadata=UNNAMED)
    tracker: TrackerConfig = dataclasses.field(default_factory=TrackerConfig, metadata=UNHASHED)


def to_typed(cfg: DictConfig, cls: type[T]) -> T:
    """Turn a composed configuration into `cls`, refusing whatever the dataclass does not know.

    OmegaConf lets `+inner.new=1` add a key to a typed node, so the keys are compared here once more.

    Raises:
        UserError: unknown key, wrong type or value, missing value, or broken interpolation: names the full key.
            `UserError`s raised by a dataclass's own `__post_init__` pass through.
    """
    try:
        plain_config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        for key in unknown_keys(cast(dict[str, Any], plain_config), cls):
            raise unknown_key(key, valid_keys(cls))
        typed = cfg if OmegaConf.get_type(cfg) is cls else OmegaConf.merge(OmegaConf.structured(cls), cfg)
        return cast(T, OmegaConf.to_object(typed))
    except OmegaConfBaseException as error:
        raise explain(error, cls) from error


def plain(config: Any) -> Any:
    """A dataclass, or anything in one, as dicts, lists, numbers, strings and None: what YAML and JSON can hold."""
    if isinstance(config, DictConfig):
        return plain(OmegaConf.to_container(config, resolve=True))
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if isinstance(config, Enum):
        return config.name
    return str(config) if isinstance(config, Path) else config


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys; empty dicts stay as values."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves


def schema_in(cfg: DictConfig) -> type:
    """The dataclass that a composed configuration is typed by; `dict` for none."""
    return OmegaConf.get_type(cfg) or dict


def schema_of(paper: str, config: Mapping[str, Any]) -> type:
    """The dataclass behind a stored configuration: of the `SCHEMAS` that `<paper>/config.py` names, by command, the one
    with the most of its keys; `RunConfig` for a paper that is not here.
    """
    try:
        schemas: Mapping[str, type] = importlib.import_module(f"{paper}.config").SCHEMAS
    except ModuleNotFoundError as error:
        if error.name not in (paper, f"{paper}.config"):
            raise
        return RunConfig
    return max(schemas.values(), key=lambda cls: len(set(config) & set(fields_of(cls))))
