"""One case of the engine benchmark, in a process of its own:
`python -m scripts.benchmark.engine_case '<case as JSON>'`.

Prints one JSON object: seconds of every repeat, peak memory above what model and libraries hold, seconds of the first
call (compilation, warm-up), floating-point operations, and a fingerprint of the outer gradient.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.footprint import footprint
from common.engine.inner import adapt
from common.engine.plan import choose, stacking_pays
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.settings import Snapshots, Unroll
from common.engine.weights import Weights, call, select, stack
from scripts.benchmark.engine_groups import EPS, RATE, Case
from scripts.benchmark.engine_others import higher, make_plain, next_token_loss, torch_func, torchopt
from scripts.benchmark.measuring import allocated_peak, gradients_of, peak_of, seconds_of, settle
from scripts.words import mistakes_told


def network_of(case: Case) -> nn.Module:
    """A GPT-2-like decoder with random weights; frozen with adapters where `rank` says so."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    name = "eager"
    if case.ours and case.lean:
        from common.language.attention import ATTENTION, register

        register()
        name = ATTENTION
    config = GPT2Config(
        vocab_size=case.vocabulary, n_embd=case.width, n_layer=case.layers, n_head=case.heads, n_positions=case.tokens,
        bos_token_id=0, eos_token_id=0, attn_implementation=name, use_cache=False,
    )  # fmt: skip
    network: nn.Module = GPT2LMHeadModel(config)
    if case.rank:
        from peft import LoraConfig, inject_adapter_in_model

        targets = ["c_attn", "c_proj", "c_fc"]
        settings = LoraConfig(r=case.rank, lora_alpha=2 * case.rank, target_modules=targets, fan_in_fan_out=True)
        inject_adapter_in_model(settings, network)  # without the PeftModel around it, of which `higher` makes no copy
        for name, weight in network.named_parameters():
            if "lora_B" in name:  # zeros at the start, where half of all second derivatives vanish
                nn.init.normal_(weight, std=0.02)
        if not case.ours:
            make_plain(network)
    if case.ours and case.lean:
        from common.engine.twice.lean import make_lean

        make_lean(network)
    if case.rank and case.stacked:
        from common.engine.lora import make_stackable

        make_stackable(network)
    return network.eval().to(case.device)


class Bench:
    """A network, its tasks, and one outer gradient by every engine."""

    def __init__(self, case: Case) -> None:
        self.case, self.network = case, network_of(case)
        self.start = select(self.network, ["*lora_*"] if case.rank else ["*"])
        self.rates = LearnedRates(list(self.start), steps=case.steps, start=RATE[case.rule]).to(case.device)
        self.rule: UpdateRule = SGD() if case.rule == "sgd" else AdamW(eps=EPS)
        draw = torch.Generator().manual_seed(1)
        shape = (case.tasks, case.rows, case.tokens)
        self.facts = torch.randint(case.vocabulary, shape, generator=draw).to(case.device)
        self.questions = torch.randint(case.vocabulary, (case.tasks, 1, case.tokens), generator=draw).to(case.device)
        self.learners = [*self.start.values(), self.rates.numbers]
        if case.judged and not stacking_pays(
            self.task_loss, self.start, self.facts[0], torch.device(case.device), shared=bool(case.rank)
        ):
            self.case = case = replace(case, stacked=False)
        self.inner: Any = self.part_loss
        if case.compiled:
            from common.engine.compiled import Compiled

            self.inner = Compiled(self.part_loss, self.network)

    def task_loss(self, weights: Weights, ids: Tensor) -> Tensor:
        """One task: ids [rows, length] -> []."""
        return next_token_loss(call(self.network, weights, input_ids=ids, use_cache=False).logits, ids)

    def loss(self, weights: Weights, ids: Tensor) -> Tensor:
        """Of one task, or [tasks] of a stack."""
        if not self.case.stacked:
            return self.task_loss(weights, ids)
        if not self.case.rank:
            losses: Tensor = torch.func.vmap(self.task_loss)(weights, ids)
            return losses
        logits = call(self.network, weights, input_ids=ids.flatten(0, 1), use_cache=False).logits
        rows = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, :, 1:].flatten(), reduction="none")
        return rows.view(len(ids), -1).mean(1)

    def part_loss(self, weights: Weights, ids: Tensor) -> Tensor:
        """A micro-batch's share of the mean over all rows."""
        return self.loss(weights, ids) * (ids.shape[-2] / self.case.rows)

    def inputs(self) -> list[tuple[Weights, Sequence[Tensor], Tensor]]:
        """Start, micro-batches and question of every task, or of the stack."""
        micro = self.case.micro or self.case.rows
        if self.case.stacked:
            return [(stack(self.start, self.case.tasks), self.facts.split(micro, dim=-2), self.questions)]
        return [(self.start, f.split(micro), q) for f, q in zip(self.facts, self.questions, strict=True)]

    def plan(self) -> tuple[Unroll, int]:
        """Unroll and `keep`; of `auto`, what it chooses for the budget."""
        case, unroll = self.case, Unroll(self.case.engine)
        if unroll is not Unroll.auto:
            return unroll, case.keep

        start, parts, questions = self.inputs()[0]
        cost = footprint(self.part_loss, lambda weights: self.loss(weights, questions), start, parts, self.rule)
        return choose(cost, case.steps, round(case.budget), Snapshots(case.snapshots))

    def ours(self, unroll: Unroll, keep: int) -> None:
        """This engine."""
        for start, parts, questions in self.inputs():
            fast = adapt(
                self.inner, start, parts, steps=self.case.steps, rule=self.rule, rates=self.rates,
                unroll=unroll, keep=keep, snapshots=Snapshots(self.case.snapshots),
            ).weights  # fmt: skip
            self.loss(fast, questions).sum().backward()

    def outer_gradient(self) -> Callable[[], None]:
        """What is timed; `auto` has chosen before, as it does once a run."""
        others = {"higher": higher, "torch.func": torch_func, "torchopt": torchopt}
        if self.case.engine in others:
            return partial(others[self.case.engine], self)
        return partial(self.ours, *self.plan())


def product_flops(into: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """Of a product that is added in place, which torch's counter leaves out."""
    return 2 * left.numel() * right[-1]


def measure(case: Case) -> dict[str, Any]:
    """Run the case."""
    from torch.utils.flop_counter import FlopCounterMode

    in_place = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), product_flops)
    torch.set_num_threads(case.threads)
    bench = Bench(case)
    case = bench.case
    run = bench.outer_gradient()
    one = bench if case.stacked else Bench(replace(case, tasks=1))  # one after the other, tasks cost what one does
    one.inner = bench.inner
    run_one = one.outer_gradient()

    def timed(bench: Bench, run: Callable[[], None]) -> float:
        settle(bench.learners, case.device)
        return seconds_of(run, case.device)

    first = timed(one, run_one)
    settle(one.learners, case.device)
    allocated = allocated_peak(run_one, case.device)
    flops = 0
    if not case.compiled:
        settle(one.learners, case.device)
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            run_one()
        flops = counter.get_total_flops() * (1 if case.stacked else case.tasks)
    settle(one.learners, case.device)
    settle(bench.learners, case.device)
    peak = peak_of(run, case.device)
    gradient, rates = gradients_of(bench.start.values()), gradients_of([bench.rates.numbers])
    seconds = [timed(bench, run) for _ in range(case.repeats)]
    return {
        "seconds": seconds, "first": first, "peak": peak, "allocated": allocated, "flops": flops,
        "fast_bytes": sum(w.numel() * w.element_size() for w in bench.start.values()),
        "gradient": gradient, "rates": rates,
    }  # fmt: skip


PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addmm_", "baddbmm_", "_scaled_dot_product_flash_attention_for_cpu"}
MOVES = ("copy", "empty", "fill", "zero", "cat", "clone", "contiguous", "resize")


def time_by_kind(case: Case) -> dict[str, float]:
    """Where the second call's time goes, in seconds, by torch's profiler; one task's graph is enough."""
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(case.threads)
    bench = Bench(case)
    run = bench.outer_gradient()
    run()
    settle(bench.learners, case.device)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recorded:
        run()
    seconds = dict.fromkeys(("products", "elementwise", "copies and memory", "autograd and Python"), 0.0)
    for event in recorded.key_averages():
        name = event.key.removeprefix("aten::")
        if name in PRODUCTS:
            kind = "products"
        elif any(word in name for word in MOVES):
            kind = "copies and memory"
        else:
            kind = "elementwise" if event.key.startswith("aten::") else "autograd and Python"
        seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds


def main() -> None:
    """Measure, or say what is wrong; with --profile say where the time goes."""
    words = [word for word in sys.argv[1:] if word != "--profile"]
    with mistakes_told():
        case = Case(**json.loads(words[0]))
        sys.stdout.write(json.dumps(time_by_kind(case) if "--profile" in sys.argv else measure(case)) + "\n")


if __name__ == "__main__":
    main()
