"""How large a model is and how much memory an outer step of it needs: what a paper's `model` command prints."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor, nn

from common.engine.adapter import MATRICES
from common.engine.cuda.sizes import host_memory_bytes
from common.engine.footprint import Footprint
from common.engine.plan import budget_of, choose
from common.engine.rates import make_rates
from common.engine.settings import InnerConfig, Snapshots, Unroll
from common.language.adapter import fast_weights
from common.language.batch import Row
from common.language.config import ModelConfig
from common.language.counting import Shape, Step, count

logger = logging.getLogger(__name__)
GIGABYTE = 1e9
COUNTED = 2048
"""Tokens of rows up to which all are counted; beyond, and of micro-batches, the cost is carried on from that of few."""
Lines = list[tuple[str, str]]
"""Name and text."""


def shape_of(read: Sequence[Sequence[Row]], asked: Sequence[Sequence[Row]]) -> Shape:
    """Sizes of the largest of some problems: the rows [problems][rows] that each reads, and those that it is asked."""
    return Shape(
        max(len(rows) for rows in read),
        max(len(row.ids) for rows in read for row in rows),
        max(len(rows) for rows in asked),
        max(len(row.ids) for rows in asked for row in rows),
        f"the largest of {len(read)} problems",
    )


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of one outer step."""

    model: int
    gradients: int
    moments: int
    """Of the outer AdamW."""
    loop: int
    """The inner loop and the outer loss with all that they hold, activations included, of what is adapted at once."""
    unroll: Unroll
    keep: int
    """As `inner.unroll=auto` would choose."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.model + self.gradients + self.moments + self.loop


def cost_of(step: Step) -> Footprint:
    """Of one problem, or of as many as are stacked."""
    inner, shape = step.inner or InnerConfig(), step.shape
    same = repr(replace(inner, unroll=Unroll.first_order, keep=0, snapshots=Snapshots.device))
    key = (same, shape, step.problems if inner.stack else 1, COUNTED)
    for rebuilds in {step.rebuilds, True}:
        if (known := step.counted.get((*key, rebuilds))) is not None:
            return known
    size = inner.micro_batch if step.inner else 0
    few, more = (2 * size, 3 * size) if size else (1, 2)  # a single micro-batch has no sum to keep
    together = f"{step.problems} problems at once" if inner.stack else "one problem"
    logger.info("counting the memory of %s: %d rows%s", together, shape.rows, f", {size} at a time" if size else "")
    if shape.rows <= more or (not size and shape.rows * shape.row_tokens <= COUNTED):
        found = count(step)
    else:
        small, large = (count(replace(step, shape=replace(shape, rows=rows))) for rows in (few, more))
        found = _carried_on(small, large, (shape.rows - few) / (more - few))
    step.counted[(*key, step.rebuilds)] = found
    return found


def _carried_on(small: Footprint, large: Footprint, times: float) -> Footprint:
    """The cost `small` plus `times` what lies between it and `large`."""
    pairs = zip(astuple(small), astuple(large), strict=True)
    return Footprint(*(round(first + times * (second - first)) for first, second in pairs))


def estimate(step: Step) -> Estimate:
    """Memory of the step."""
    model = sum(w.numel() * w.element_size() for w in step.network.parameters())
    learning = [*(w for w in step.network.parameters() if w.requires_grad), *step.others]
    gradients = sum(w.numel() * w.element_size() for w in learning)
    inner, shape = step.inner, step.shape
    if inner is None:
        read = shape.question_tokens + shape.rows * shape.row_tokens
        whole = replace(shape, rows=1, question_tokens=read, questions=shape.questions * step.problems)
        cost = cost_of(replace(step, shape=whole))
        return Estimate(model, gradients, 2 * gradients, cost.outer, Unroll.none, 0)
    cost, unroll, keep = cost_of(step), inner.unroll, inner.keep
    if unroll is Unroll.auto:
        unroll, keep = choose(cost, inner.steps, budget_of(inner.memory_gb, step.device), inner.snapshots)
    peak = cost.peak(unroll, inner.steps, keep, inner.snapshots)
    return Estimate(model, gradients, 2 * gradients, peak, unroll, keep)


def room(device: torch.device) -> tuple[int, str]:
    """Memory of the device in bytes, and its name."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return int(found.total_memory), found.name
    return host_memory_bytes(), "this machine"


def remedies(step: Step, there: int) -> list[str]:
    """What would make the step fit into `there` bytes, each with the size it comes to; the exact changes first."""
    found = []
    for words, inner in _smaller(step):
        size = estimate(replace(step, inner=inner)).total
        if size <= there:
            found.append(f"{words}: {_size(size)}")
    return [*found, "fewer inner.weights, a smaller model.name, a larger device, or scale=cpu"]


def _smaller(step: Step) -> Iterator[tuple[str, InnerConfig]]:
    """Settings of the inner loop that take less and less, with what one would type."""
    if step.inner is None:
        return
    inner, alone = step.inner, []
    if inner.stack and step.problems > 1:
        inner, alone = replace(inner, stack=False), ["inner.stack=false"]
    exact = inner.unroll.exact
    words = [*alone]
    if exact:
        inner = replace(inner, unroll=Unroll.recompute, keep=0)
        words.append("inner.unroll=recompute")
    if words:
        yield " ".join(words) + " (the same numbers)", inner
    inner = replace(inner, micro_batch=1)
    words.append("inner.micro_batch=1")
    yield " ".join(words) + " (the same numbers)", inner
    if exact and step.device.type != "cpu":
        host = replace(inner, snapshots=Snapshots.host)
        yield " ".join([*words, "inner.snapshots=host"]) + " (the same numbers)", host
    if exact:
        cut, how = replace(inner, unroll=Unroll.truncate, keep=1), "inner.unroll=truncate inner.keep=1"
        yield " ".join([*alone, how, "inner.micro_batch=1"]) + " (the last step exactly)", cut
    elif inner.unroll is not Unroll.first_order:
        cut, how = replace(inner, unroll=Unroll.first_order, keep=0), "inner.unroll=first_order inner.keep=0"
        yield " ".join([*alone, how, "inner.micro_batch=1"]) + " (no step exactly)", cut


def model_lines(network: nn.Module, config: ModelConfig) -> Lines:
    """Parameters, and what learns and what does not where not everything does."""
    named, lora = list(network.named_parameters()), config.lora
    lines = [
        ("model", f"{config.name} ({type(network).__name__}, tied weights count once)"),
        ("parameters", counted(w for _, w in named)),
    ]
    if not lora.rank:
        return lines
    layers = sorted({name.split(f".{MATRICES}")[0].rpartition(".")[2] for name, _ in named if MATRICES in name})
    kind = f"rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g} on {', '.join(layers)}"
    further = f" and model.lora.train={lora.train}" if lora.train else ""
    return [
        *lines,
        ("adapter", f"{counted(w for name, w in named if MATRICES in name)}: LoRA of {kind}"),
        ("trained", f"{counted(w for _, w in named if w.requires_grad)}: the adapter{further}"),
        ("frozen", counted(w for _, w in named if not w.requires_grad)),
    ]


def fast_lines(network: nn.Module, inner: InnerConfig) -> Lines:
    """What the inner loop moves, and how fast.

    Raises:
        UserError: a pattern of inner.weights matches nothing.
    """
    chosen = fast_weights(network, inner.weights)
    count = make_rates(inner, list(chosen)).numbers.numel()
    kind = f"one a {inner.per.name} and step" + ("" if inner.learned else ", not learned")
    return [
        ("fast weights", f"{counted(chosen.values())}, inner.weights={inner.weights}"),
        ("inner rates", f"{count:,}: {kind}, start {inner.lr:g}, {inner.space.name}"),
    ]


def memory_lines(step: Step, precision: str, read: str) -> Lines:
    """The estimate, whether it fits, and what would make it; `read` is what the rows are, in the plural."""
    needed, shape, inner = estimate(step), step.shape, step.inner
    sizes = f"{shape.rows} {read} of {shape.row_tokens} tokens, {shape.questions} questions of {shape.question_tokens}"
    alive = "each problem goes backward before the next begins"
    if inner is None:
        alive = f"activations of {step.problems} problems"
    elif inner.stack:
        alive = f"{step.problems} problems at once (inner.stack)"
    there, name = room(step.device)
    fits = "yes" if needed.total <= there else "no"
    return [
        *([] if inner is None else [("inner loop", _loop(inner, needed))]),
        ("", ""),
        ("memory of one outer step", f"estimate in {precision}; {sizes} ({shape.source})"),
        ("  model", _size(needed.model)),
        ("  outer gradients", _size(needed.gradients)),
        ("  outer AdamW moments", _size(needed.moments)),
        ("  outer loss" if inner is None else "  inner loop", f"{_size(needed.loop)}  {alive}"),
        ("  in all", _size(needed.total)),
        ("fits", f"{fits}: {name} ({step.device.type}) has {_size(there)}"),
        *(("  remedy", text) for text in (remedies(step, there) if fits == "no" else [])),
    ]


def counted(tensors: Iterable[Tensor]) -> str:
    """How many numbers, in how many tensors."""
    sizes = [tensor.numel() for tensor in tensors]
    return f"{sum(sizes):,} in {len(sizes)} tensors"


def aligned(lines: Lines) -> str:
    """Text for the terminal, the names in a column."""
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:{width}}{text}".rstrip() + "\n" for name, text in lines)


def _loop(inner: InnerConfig, needed: Estimate) -> str:
    kept = f", keep={needed.keep}" if needed.unroll in (Unroll.truncate, Unroll.tgu, Unroll.recompute) else ""
    chosen = " (inner.unroll=auto)" if inner.unroll is Unroll.auto else ""
    micro = f", micro-batches of {inner.micro_batch}" if inner.micro_batch else ""
    return f"{inner.rule.name}, {inner.steps} steps, unroll={needed.unroll.name}{kept}{micro}{chosen}"


def _size(count: int) -> str:
    return f"{count / GIGABYTE:.2f} GB" if count >= GIGABYTE / 10 else f"{count / 1e6:.1f} MB"
