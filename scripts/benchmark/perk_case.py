"""The cases of PERK's benchmark: training, reading and answering with the parts that PERK is made of.

The model has random weights and the shape of Qwen2; its configuration is written by hand, so nothing is fetched.
"""

from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.rates import make_rates
from common.engine.settings import InnerConfig, RuleName, Unroll
from common.engine.weights import Weights, select
from common.language import model as models
from common.language.batch import Row
from common.language.context import KeptContext, cache_bytes
from common.language.decode import continuations
from common.language.objective import mean_loss
from common.language.writer import Writer
from perk.config import AdapterConfig, ModelConfig
from perk.objective import Weigher, WeightedLosses
from scripts.benchmark.engine_others import make_plain
from scripts.benchmark.measuring import allocated_peak, fingerprint, gradients_of, peak_of, seconds_of, settle
from scripts.benchmark.perk_groups import FT_ICR, HIGHER, SIZES, STEPS, Case, Size
from scripts.benchmark.perk_others import WithStates, higher

WINDOW = 2**18
"""Positions of the model; those of a context in the prompt run up to its length."""
RATE, EPS = 1e-3, 1e-3
"""Of the inner AdamW. With the usual eps of 1e-8 the direction of what has hardly any gradient is a sign of rounding,
and then no two programs in single precision agree on the outer gradient to 1e-4.
"""
QUESTIONS = 6
"""Asked one after the other; the first warms up."""
NO_END = -1
"""No token ends an answer, so that all are of one length."""


def settings_of(size: Size) -> Any:
    """The configuration of `transformers`."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=size.vocabulary, hidden_size=size.width, intermediate_size=size.hidden,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.key_heads,
        max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip


def adapter_of(size: Size) -> AdapterConfig:
    """On all linear layers; no dropout, so that two runs give the same numbers."""
    return AdapterConfig(rank=size.rank, dropout=0.0)


def model_of(case: Case, *, adapted: bool) -> models.LanguageModel:
    """A model as PERK loads it, with an adapter of random numbers where `adapted`."""
    size = SIZES[case.size]
    torch.manual_seed(0)
    lora = adapter_of(size) if adapted else AdapterConfig(rank=0, targets=[])
    with TemporaryDirectory() as folder:
        settings_of(size).save_pretrained(folder)
        config = ModelConfig(name=folder, pretrained=False, lora=lora)
        where: dict[str, Any] = {"device": torch.device(case.device), "dtype": getattr(torch, size.dtype)}
        model = models.load(config, 1, **where)
    _draw(model.network)
    model.network.eval()
    return model


def patched_of(case: Case) -> nn.Module:
    """The same model with the same numbers for `higher`: eager attention, the layers of the library, plain LoRA."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM

    size = SIZES[case.size]
    torch.manual_seed(0)
    settings = settings_of(size)
    how = {"attn_implementation": "eager", "dtype": getattr(torch, size.dtype), "trust_remote_code": False}
    network = AutoModelForCausalLM.from_config(settings, **how)
    inject_adapter_in_model(LoraConfig(**adapter_of(size).settings(size.layers)), network)
    _draw(network)
    make_plain(network)
    return WithStates(network).eval().to(case.device)


def _draw(network: nn.Module) -> None:
    """Random numbers in place of the zeros that B starts with, where half of all second derivatives vanish."""
    draw = torch.Generator().manual_seed(1)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=draw))


def _weigher(case: Case) -> Weigher:
    torch.manual_seed(2)
    found = Weigher(SIZES[case.size].width)
    nn.init.normal_(found.last.weight, std=0.02)
    return found.to(case.device)


def _inner(unroll: Unroll, keep: int, micro: int) -> InnerConfig:
    return InnerConfig(
        rule=RuleName.adamw, steps=STEPS, lr=RATE, beta2=0.95, eps=EPS, unroll=unroll, keep=keep,
        micro_batch=micro, weights=["*lora_*"],
    )  # fmt: skip


def _tokens(case: Case, *shape: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(1, SIZES[case.size].vocabulary, shape, generator=draw)


def _rows(ids: Tensor) -> list[Row]:
    """All tokens but the first are predicted."""
    return [Row(tuple(row), 1) for row in ids.tolist()]


class Memoriser:
    """A model with its writer, and a context."""

    def __init__(self, case: Case, inner: InnerConfig) -> None:
        size = SIZES[case.size]
        self.model, self.weigher = model_of(case, adapted=True), _weigher(case)
        self.rates = make_rates(inner, list(select(self.model.network, inner.weights))).to(case.device)
        memorised = WeightedLosses(self.model.losses, self.weigher)
        self.writer = Writer(
            self.model,
            self.rates,
            inner,
            lambda weights, rows: mean_loss(memorised, weights, rows),
            pad=0,
            others=list(self.weigher.parameters()),
        )
        self.start = self.writer.slow
        self.rows = self.writer.rows([_rows(_tokens(case, case.segments, size.segment, seed=3))])

    def read(self, groups: int) -> Weights:
        """The adapter after the context has been written into it, in `groups` groups."""
        size = -(-len(self.rows.ids) // groups)
        return self.writer.write(self.rows, tasks=1, training=False, micro_batch=size).weights


class Training:
    """One outer step, by this engine or by `higher`."""

    def __init__(self, case: Case) -> None:
        size = SIZES[case.size]
        self.segments = _tokens(case, case.segments, size.segment, seed=3).to(case.device)
        self.question = _tokens(case, 1, size.question, seed=4).to(case.device)
        self.outer_step: Callable[[], None]
        if case.engine == HIGHER:
            self.inner = _inner(Unroll.tgu, case.keep, 0)
            self.network, self.weigher = patched_of(case), _weigher(case)
            self.start = select(self.network, self.inner.weights)
            self.rates = make_rates(self.inner, list(self.start)).to(case.device)
            self.outer_step = higher(self)
            return
        self.inner = _inner(Unroll(case.engine), case.keep, case.micro)
        own = Memoriser(case, self.inner)
        self.start, self.rates, self.weigher = own.start, own.rates, own.weigher
        question = own.writer.rows([_rows(self.question)])

        def outer_step() -> None:
            adapted = own.writer.write(own.rows, tasks=1, training=True)
            mean_loss(own.model.losses, adapted.weights, question).backward()

        self.outer_step = outer_step


def train(case: Case) -> dict[str, Any]:
    """An outer step; the first call is the warm-up."""
    bench = Training(case)
    others = [bench.rates.numbers, *bench.weigher.parameters()]
    learners = [*bench.start.values(), *others]
    first = seconds_of(bench.outer_step, case.device)
    gradient, rates = gradients_of(bench.start.values()), gradients_of(others)
    return {**_costs(bench.outer_step, learners, case), "first": first, "gradient": gradient, "rates": rates}


def read(case: Case) -> dict[str, Any]:
    """Writing a context; the change that was written is compared."""
    bench = Memoriser(case, _inner(Unroll.first_order, 0, 0))
    written: list[Weights] = []
    first = seconds_of(lambda: written.append(bench.read(case.accumulation)), case.device)
    change = fingerprint(after - bench.start[name].detach() for name, after in written.pop().items())
    return {**_costs(lambda: bench.read(case.accumulation), [], case), "first": first, "gradient": change}


def answer(case: Case) -> dict[str, Any]:
    """Reading once, and questions one by one."""
    read, ask_of, bytes_of = (_in_context if case.engine == FT_ICR else _from_memory)(case)
    readings: list[Any] = []
    first = seconds_of(lambda: readings.append(read()), case.device)
    costs = _costs(read, [], case)
    reading = readings.pop()
    questions = _tokens(case, QUESTIONS, SIZES[case.size].question, seed=4).to(case.device)
    _, *seconds = [seconds_of(partial(ask_of, reading, question), case.device) for question in questions]
    return {**costs, "first": first, "question": sum(seconds) / len(seconds), "kept": bytes_of(reading)}


Way = tuple[Callable[[], Any], Callable[[Any, Tensor], Any], Callable[[Any], int]]
"""Read; answer a question from what reading left; its bytes."""


def _in_context(case: Case) -> Way:
    size, model = SIZES[case.size], model_of(case, adapted=False)
    context = _tokens(case, case.tokens, seed=3).to(case.device)
    kept = KeptContext(model.network, select(model.network), context)
    room = size.question + size.new_tokens
    return lambda: kept.read(room), lambda cache, asked: kept.answer(cache, asked, size.new_tokens), cache_bytes


def _from_memory(case: Case) -> Way:
    bench = Memoriser(case, _inner(Unroll.first_order, 0, 0))
    how: dict[str, Any] = {"eos": NO_END, "new_tokens": SIZES[case.size].new_tokens, "stacked": False}
    return (
        lambda: bench.read(case.accumulation),
        lambda fast, asked: continuations(bench.model, fast, [[asked.tolist()]], **how),
        lambda fast: sum(w.numel() * w.element_size() for w in fast.values()),
    )


def _costs(run: Callable[[], object], learners: Sequence[Tensor], case: Case) -> dict[str, Any]:
    """Seconds of every repeat, and the peaks of one call; it has run before."""
    seconds: list[float] = []
    peaks = []
    for _ in range(case.repeats):
        settle(learners, case.device)
        peaks.append(peak_of(lambda: seconds.append(seconds_of(run, case.device)), case.device))
    settle(learners, case.device)
    allocated = peaks[0] if case.device == "cuda" else allocated_peak(run, case.device)
    return {"seconds": seconds, "peak": max(peaks), "allocated": allocated}


def measure(case: Case) -> dict[str, Any]:
    """The fields of a `Result`."""
    torch.set_num_threads(case.threads)
    return {"train": train, "read": read, "answer": answer}[case.work](case)
