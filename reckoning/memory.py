"""What `python -m reckoning.model` prints: sizes, and the memory that one outer step needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.bilevel import InnerConfig, Snapshots, Unroll
from common.environment import hardware, pick_device
from common.footprint import Footprint, footprint
from common.language.adapter import MATRICES, fast_weights
from common.language.batch import Rows, micro_batches
from common.language.objective import mean_loss
from common.plan import budget_of, choose
from common.rates import make_rates
from common.rules import make_rule
from common.twice.cross_entropy import TokenLosses
from common.weights import stack
from reckoning.config import Learner, TrainConfig

GIGABYTE = 1e9


@dataclass(frozen=True)
class Shape:
    """Sizes of a large problem: its facts, and its questions with their targets."""

    facts: int
    fact_tokens: int
    questions: int
    question_tokens: int
    source: str
    """Where the sizes come from, in words."""


ASSUMED = Shape(20, 24, 1, 160, "assumed, as the data are not there")


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
        return self.model + self.gradients + self.moments + self.loop


def cost_of(network: nn.Module, config: TrainConfig, shape: Shape) -> Footprint:
    """Of one problem, or of as many as are stacked; `network` may be without data (fake tensors)."""
    inner = config.inner
    tasks = (config.outer.batch_problems,) if inner.stack else ()
    losses, start = TokenLosses(network), fast_weights(network, inner.weights)
    facts, questions = (
        _rows(tasks, *size) for size in ((shape.facts, shape.fact_tokens), (shape.questions, shape.question_tokens))
    )
    return footprint(
        lambda weights, rows: mean_loss(losses, weights, rows),
        lambda weights: mean_loss(losses, weights, questions),
        stack(start, *tasks) if tasks else start,
        micro_batches(facts, inner.micro_batch),
        make_rule(inner),
        [w for name, w in network.named_parameters() if w.requires_grad and name not in start],
    )


def estimate(network: nn.Module, config: TrainConfig, shape: Shape) -> Estimate:
    """Memory of an outer step; for the in-context learner the facts stand before every question."""
    model = sum(w.numel() * w.element_size() for w in network.parameters())
    learning = sum(w.numel() * w.element_size() for w in network.parameters() if w.requires_grad)
    if config.method.learner is not Learner.reckoning:
        read = shape.question_tokens + shape.facts * shape.fact_tokens
        whole = replace(shape, facts=1, question_tokens=read, questions=shape.questions * config.outer.batch_problems)
        plain = replace(config, inner=InnerConfig())
        return Estimate(model, learning, 2 * learning, cost_of(network, plain, whole).outer, Unroll.none, 0)
    cost, inner = cost_of(network, config, shape), config.inner
    unroll, keep = inner.unroll, inner.keep
    if unroll is Unroll.auto:
        budget = budget_of(inner.memory_gb, pick_device(config.runtime.device))
        unroll, keep = choose(cost, inner.steps, budget, inner.snapshots)
    return Estimate(model, learning, 2 * learning, cost.peak(unroll, inner.steps, keep, inner.snapshots), unroll, keep)


def room(device: torch.device) -> tuple[int, str]:
    """Memory of the device in bytes, and its name."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return int(found.total_memory), found.name
    return int(hardware()["memory_bytes"]), "this machine"


def remedies(network: nn.Module, config: TrainConfig, shape: Shape, there: int) -> list[str]:
    """What would make the step fit into `there` bytes, each with the size it comes to; the exact changes first."""
    found = []
    for words, inner in _smaller(config):
        size = estimate(network, replace(config, inner=inner), shape).total
        if size <= there:
            found.append(f"{words}: {_size(size)}")
    return [*found, "fewer inner.weights, a smaller model.name, a larger device, or scale=cpu"]


def _smaller(config: TrainConfig) -> Iterator[tuple[str, InnerConfig]]:
    """Settings of the inner loop that take less and less, with what one would type."""
    if config.method.learner is not Learner.reckoning:
        return
    words, inner = [], replace(config.inner, unroll=Unroll.recompute, keep=0)
    if inner.stack and config.outer.batch_problems > 1:
        words.append("inner.stack=false")
        inner = replace(inner, stack=False)
    words.append("inner.unroll=recompute")
    yield " ".join(words) + " (the same numbers)", inner
    inner = replace(inner, micro_batch=1)
    words.append("inner.micro_batch=1")
    yield " ".join(words) + " (the same numbers)", inner
    if config.runtime.device.name != "cpu":
        yield (
            " ".join([*words, "inner.snapshots=host"]) + " (the same numbers)",
            replace(inner, snapshots=Snapshots.host),
        )
    cut = replace(inner, unroll=Unroll.truncate, keep=1)
    yield " ".join([*words[:-2], "inner.unroll=truncate inner.keep=1", words[-1]]) + " (the last step exactly)", cut


def report(network: nn.Module, config: TrainConfig, shape: Shape) -> str:
    """The text for the terminal; `network` may be without data (fake tensors).

    Raises:
        UserError: a pattern of inner.weights matches nothing, or the device is not there.
    """
    tensors = list(network.parameters())
    lines = [
        ("model", f"{config.model.name} ({type(network).__name__}, tied weights count once)"),
        ("parameters", _counted(tensors)),
        *_lora_lines(network, config),
    ]
    ours = config.method.learner is Learner.reckoning
    if ours:
        inner = config.inner
        chosen = fast_weights(network, inner.weights)
        count = make_rates(inner, list(chosen)).numbers.numel()
        kind = f"one a {inner.per.name} and step" + ("" if inner.learned else ", not learned")
        lines += [
            ("fast weights", f"{_counted(chosen.values())}, inner.weights={inner.weights}"),
            ("inner rates", f"{count:,}: {kind}, start {inner.lr:g}, {inner.space.name}"),
        ]
    if config.method.learner is Learner.shortcuts:
        return _aligned([*lines, ("memory", f"method={config.method.name} trains no network")])
    needed = estimate(network, config, shape)
    if ours:
        lines.append(("inner loop", _loop(config.inner, needed)))
    sizes = f"{shape.facts} facts of {shape.fact_tokens} tokens, {shape.questions} questions of {shape.question_tokens}"
    alive = "each problem goes backward before the next begins"
    if ours and config.inner.stack:
        alive = f"{config.outer.batch_problems} problems at once (inner.stack)"
    elif not ours:
        alive = f"activations of {config.outer.batch_problems} problems"
    lines += [
        ("", ""),
        ("memory of one outer step", f"estimate in {config.runtime.dtype.name}; {sizes} ({shape.source})"),
        ("  model", _size(needed.model)),
        ("  outer gradients", _size(needed.gradients)),
        ("  outer AdamW moments", _size(needed.moments)),
        ("  inner loop" if ours else "  outer loss", f"{_size(needed.loop)}  {alive}"),
        ("  in all", _size(needed.total)),
    ]
    device = pick_device(config.runtime.device)
    there, name = room(device)
    fits = "yes" if needed.total <= there else "no"
    lines.append(("fits", f"{fits}: {name} ({device.type}) has {_size(there)}"))
    if fits == "no":
        lines += [("  remedy", text) for text in remedies(network, config, shape, there)]
    return _aligned(lines)


def _lora_lines(network: nn.Module, config: TrainConfig) -> list[tuple[str, str]]:
    """What learns and what does not, where not everything does."""
    lora = config.model.lora
    if not lora.rank:
        return []
    named = list(network.named_parameters())
    layers = sorted({name.split(f".{MATRICES}")[0].rpartition(".")[2] for name, _ in named if MATRICES in name})
    kind = f"rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g} on {', '.join(layers)}"
    further = f" and model.lora.train={lora.train}" if lora.train else ""
    return [
        ("adapter", f"{_counted(w for name, w in named if MATRICES in name)}: LoRA of {kind}"),
        ("trained", f"{_counted(w for _, w in named if w.requires_grad)}: the adapter{further}"),
        ("frozen", _counted(w for _, w in named if not w.requires_grad)),
    ]


def _counted(tensors: Iterable[Tensor]) -> str:
    sizes = [tensor.numel() for tensor in tensors]
    return f"{sum(sizes):,} in {len(sizes)} tensors"


def _rows(tasks: tuple[int, ...], count: int, length: int) -> Rows:
    """A batch of that size, of no particular tokens."""
    rows = (*tasks, count)
    return Rows(torch.zeros(*rows, length, dtype=torch.long), torch.ones(*rows, length), torch.ones(rows))


def _loop(inner: InnerConfig, needed: Estimate) -> str:
    kept = f", keep={needed.keep}" if needed.unroll in (Unroll.truncate, Unroll.recompute) else ""
    chosen = " (inner.unroll=auto)" if inner.unroll is Unroll.auto else ""
    micro = f", micro-batches of {inner.micro_batch}" if inner.micro_batch else ""
    return f"{inner.rule.name}, {inner.steps} steps, unroll={needed.unroll.name}{kept}{micro}{chosen}"


def _size(count: int) -> str:
    return f"{count / GIGABYTE:.2f} GB" if count >= GIGABYTE / 10 else f"{count / 1e6:.1f} MB"


def _aligned(lines: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:{width}}{text}".rstrip() + "\n" for name, text in lines)
