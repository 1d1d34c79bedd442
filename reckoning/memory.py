"""What `python -m reckoning.model` prints: sizes, and the memory that one outer step needs (sheet section 1.5)."""

from dataclasses import dataclass

import torch
from torch import nn

from common.bilevel import InnerConfig, RuleName, Unroll
from common.environment import hardware, pick_device
from common.rates import make_rates
from common.weights import select
from reckoning.config import Learner, TrainConfig

GRAPH = 1.2
"""Saved tensors of an unrolled inner loop beyond its steps, in sizes of the fast weights. Measured (section 1.5)."""
GRAPH_A_STEP = {RuleName.sgd: 1.7, RuleName.momentum: 2.7, RuleName.adamw: 6.7}
"""The same for every step that keeps its graph. sgd and adamw are measured; momentum is sgd and one more buffer."""
STATE = {RuleName.sgd: 0, RuleName.momentum: 1, RuleName.adamw: 2}
"""Buffers of the inner rule while no graph is kept, in sizes of the fast weights."""
GIGABYTE = 1e9


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of one outer step; activations come on top."""

    model: int
    gradients: int
    moments: int
    """Of the outer AdamW."""
    graph: int
    """Of one problem: fast weights, the inner rule's state, and what the unrolled graph keeps."""
    alive: int
    """Problems whose graphs exist at the same time."""

    @property
    def total(self) -> int:
        return self.model + self.gradients + self.moments + self.graph * self.alive


def kept_steps(inner: InnerConfig) -> int:
    """Inner steps whose graph is in memory at the same time; first order needs about one step's."""
    if inner.unroll is Unroll.truncate:
        return inner.keep
    return 1 if inner.unroll is Unroll.first_order else inner.steps


def graph_bytes(inner: InnerConfig, fast: int) -> int:
    """Of one problem with `fast` bytes of fast weights."""
    kept = kept_steps(inner)
    if kept == 0:
        return round(fast * (2 + STATE[inner.rule]))  # new weights, their gradient, the rule's buffers
    return round(fast * (GRAPH + GRAPH_A_STEP[inner.rule] * kept))


def estimate(config: TrainConfig, parameters: int, fast: int) -> Estimate:
    """For a model of `parameters` numbers of which `fast` are fast weights."""
    width = getattr(torch, config.runtime.dtype.name).itemsize
    model = parameters * width
    if config.method.learner is not Learner.reckoning:
        return Estimate(model, model, 2 * model, 0, 0)
    alive = config.outer.batch_problems if config.inner.stack else 1
    return Estimate(model, model, 2 * model, graph_bytes(config.inner, fast * width), alive)


def room(device: torch.device) -> tuple[int, str]:
    """Memory of the device in bytes, and its name."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return int(found.total_memory), found.name
    return int(hardware()["memory_bytes"]), "this machine"


def remedies(config: TrainConfig, fast: int, spare: int) -> list[str]:
    """What would make the step smaller, the changes that keep the numbers first; `spare` bytes are left for graphs."""
    inner, found = config.inner, []
    if inner.stack and config.outer.batch_problems > 1:
        found.append("inner.stack=false (problems one by one: the same numbers)")
    width = getattr(torch, config.runtime.dtype.name).itemsize
    fitting = int((spare / (fast * width) - GRAPH) / GRAPH_A_STEP[inner.rule])
    if inner.unroll is Unroll.stored and 1 <= fitting < inner.steps:
        found.append(f"inner.unroll=truncate inner.keep={fitting} (the last {fitting} steps exactly)")
    if inner.unroll is not Unroll.first_order:
        found.append("inner.unroll=first_order (about one step's memory)")
    if config.runtime.dtype.name != "bfloat16":
        found.append("runtime.dtype=bfloat16 (rounds)")
    return [*found, "fewer inner.weights, a smaller model.name, a larger device, or scale=cpu"]


def report(network: nn.Module, config: TrainConfig) -> str:
    """The text for the terminal; `network` may be without data (meta device).

    Raises:
        UserError: a pattern of inner.weights matches nothing, or the device is not there.
    """
    tensors = list(network.parameters())
    parameters = sum(tensor.numel() for tensor in tensors)
    lines = [
        ("model", f"{config.model.name} ({type(network).__name__}, tied weights count once)"),
        ("parameters", f"{parameters:,} in {len(tensors)} tensors"),
    ]
    fast = 0
    if config.method.learner is Learner.reckoning:
        inner = config.inner
        chosen = select(network, inner.weights)
        fast = sum(tensor.numel() for tensor in chosen.values())
        count = make_rates(inner, list(chosen)).numbers.numel()
        kind = f"one a {inner.per.name} and step" + ("" if inner.learned else ", not learned")
        lines += [
            ("fast weights", f"{fast:,} in {len(chosen)} tensors, inner.weights={inner.weights}"),
            ("inner rates", f"{count:,}: {kind}, start {inner.lr:g}, {inner.space.name}"),
            ("inner loop", _loop(inner)),
        ]
    if config.method.learner is Learner.shortcuts:
        return _aligned([*lines, ("memory", f"method={config.method.name} trains no network")])
    needed = estimate(config, parameters, fast)
    lines += [
        ("", ""),
        ("memory of one outer step", f"estimate in {config.runtime.dtype.name}; activations come on top"),
        ("  model", _size(needed.model)),
        ("  outer gradients", _size(needed.gradients)),
        ("  outer AdamW moments", _size(needed.moments)),
    ]
    if needed.alive:
        lines.append(("  inner loop", f"{_size(needed.graph * needed.alive)}  {_alive(config, needed)}"))
    lines.append(("  in all", _size(needed.total)))
    device = pick_device(config.runtime.device)
    there, name = room(device)
    if needed.total <= there:
        lines.append(("fits", f"yes: {name} ({device.type}) has {_size(there)}"))
    else:
        lines.append(("fits", f"no: {name} ({device.type}) has {_size(there)}"))
        spare = there - (needed.total - needed.graph * needed.alive)
        lines += [("  remedy", text) for text in (remedies(config, fast, spare) if fast else ["a smaller model.name"])]
    return _aligned(lines)


def _loop(inner: InnerConfig) -> str:
    kept = f", keep={inner.keep}" if inner.unroll is Unroll.truncate else ""
    return f"{inner.rule.name}, {inner.steps} steps, unroll={inner.unroll.name}{kept}"


def _alive(config: TrainConfig, needed: Estimate) -> str:
    each = f"{_size(needed.graph)} a problem"
    if config.inner.stack:
        return f"{each}, {needed.alive} at once (inner.stack)"
    return f"{each}, one at a time: each goes backward before the next begins"


def _size(count: int) -> str:
    return f"{count / GIGABYTE:.2f} GB" if count >= GIGABYTE / 10 else f"{count / 1e6:.1f} MB"


def _aligned(lines: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:{width}}{text}".rstrip() + "\n" for name, text in lines)
