"""Writes rows of tokens into fast weights: the inner loop of a language model, for one task or a stack of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from common.engine.compiled import Compiled
from common.engine.cuda.graphs import GraphedDescent
from common.engine.derivatives import InnerLoss
from common.engine.footprint import footprint
from common.engine.inner import Adapted, adapt
from common.engine.plan import budget_of, choose, stacking_pays
from common.engine.rates import LearnedRates
from common.engine.rules import RuleState, make_rule
from common.engine.settings import InnerConfig, RuleName, Unroll
from common.engine.unroll.descent import descend
from common.engine.weights import Weights, stack
from common.language.adapter import fast_weights
from common.language.batch import LENGTHS, Row, Rows, Shares, micro_batches, tensors_for, to_rows, to_stack
from common.language.model import LanguageModel

logger = logging.getLogger(__name__)
ROUNDED_EPS = 1e-3
"""Of AdamW: below, its derivative where bfloat16 has rounded a gradient to 0 can swamp the outer gradient."""
Tasks = Sequence[Sequence[Row]]
"""[tasks][rows]; one task unless the weights are stacked."""


class Writer:
    """The fast weights of a model, and how rows are written into copies of them."""

    def __init__(
        self,
        model: LanguageModel,
        rates: LearnedRates,
        inner: InnerConfig,
        loss: InnerLoss,
        *,
        pad: int,
        answer_weight: float = 1.0,
        inner_steps: int = 0,
        others: Sequence[Tensor] = (),
        capture: bool = False,
    ) -> None:
        """Every problem on its own unless `inner.stack`.

        Args:
            model: the network; those of its weights that `inner.weights` names and that learn are fast.
            rates: inner learning rates for these.
            inner: the inner loop.
            loss: what is minimised: loss(fast weights, rows).
            pad: token that fills up shorter rows.
            answer_weight: weight of an answer's token in the mean over its row.
            inner_steps: inner steps at test time, 0 for as many as in training.
            others: what else of `loss` learns and is no weight of the network.
            capture: on CUDA, record the steps at test time and replay them while the rows keep their shape.
        """
        self.model, self.rates, self.inner = model, rates, inner
        self.inner_steps = inner_steps or inner.steps
        self.rule = make_rule(inner)
        self.unroll, self.keep, self.stacked = inner.unroll, inner.keep, inner.stack
        self.slow = fast_weights(model.network, inner.weights)
        fast = {id(w) for w in self.slow.values()}
        learning = [w for w in model.network.parameters() if w.requires_grad and id(w) not in fast]
        self.also = [*learning, *others]
        self.loss: InnerLoss = Compiled(loss, model.network) if inner.compile else loss
        self.multiple = LENGTHS if inner.compile else 1
        self.tensors = tensors_for(model.network, pad, answer_weight)
        steep = inner.rule is RuleName.adamw and inner.eps < ROUNDED_EPS and not inner.floor
        if model.autocast and inner.unroll.second_order and steep:
            logger.warning(
                "runtime.autocast=true with inner.rule=adamw, inner.eps=%g: bfloat16 rounds some inner gradients to 0, "
                "where AdamW's derivative is 1/eps, and the outer gradient may point elsewhere; use inner.eps=%g or "
                "more, inner.rule=sgd, inner.floor=0.1, or runtime.autocast=false", inner.eps, ROUNDED_EPS
            )  # fmt: skip
        graphed = capture and self.tensors["device"].type == "cuda"
        self.descents = {mode: GraphedDescent() for mode in (True, False)} if graphed else {}
        """By mode of the network, which a recording holds: with dropout or without."""

    def start(self, tasks: int) -> Weights:
        """The weights before the first step, a stack of them where tasks are stacked."""
        return stack(self.slow, tasks) if self.stacked else self.slow

    def rows(self, tasks: Tasks, shares: Sequence[Shares] | None = None) -> Rows:
        """Rows as tensors; `shares` of the rows in their task's mean, None weighs all the same."""
        if self.stacked:
            return to_stack(tasks, shares=shares, multiple=self.multiple, **self.tensors)
        own = shares[0] if shares else None
        return to_rows(tasks[0], shares=own, multiple=self.multiple, **self.tensors)

    def write(
        self,
        rows: Rows,
        *,
        tasks: int,
        training: bool,
        micro_batch: int | None = None,
        start: Weights | None = None,
        steps: int | None = None,
    ) -> Adapted:
        """Take the inner steps on `rows` of `tasks` tasks, with an outer graph while `training`.

        Args:
            rows: of every task.
            tasks: how many there are.
            training: whether an outer gradient follows.
            micro_batch: rows in one graph, None for `inner.micro_batch`.
            start: other weights to begin from, such as those that hold an earlier text.
            steps: None for as many as were set for training, or for test time.

        Raises:
            UserError: `steps` is below 1.
        """
        unroll = self.unroll if training else Unroll.none
        own = self.inner.steps if training else self.inner_steps
        adapted = adapt(
            self.loss,
            self.start(tasks) if start is None else start,
            micro_batches(rows, self.inner.micro_batch if micro_batch is None else micro_batch),
            steps=own if steps is None else steps,
            rule=self.rule,
            rates=self.rates,
            unroll=unroll,
            keep=self.keep if training else 0,
            also=self.also,
            snapshots=self.inner.snapshots,
            descent=descend if training else self.descents.get(self.model.network.training, descend),
        )
        return replace(adapted, state=RuleState())  # no text goes on from here: its moments need not be held

    def stack_if_it_pays(self, rows: Sequence[Row]) -> None:
        """With `inner.stack`: adapt tasks one by one all the same where one like `rows` is work enough."""
        if self.stacked:
            given = to_rows(rows, **self.tensors)
            shared = any(not weight.requires_grad for weight in self.model.network.parameters())
            self.stacked = stacking_pays(self.loss, self.slow, given, given.ids.device, shared=shared)

    def plan(self, rows: Rows, tasks: int, outer: Callable[[Weights], Tensor]) -> None:
        """For `inner.unroll=auto`: choose by the memory of the outer gradient of `outer` through steps on `rows`."""
        parts = micro_batches(rows, self.inner.micro_batch)
        cost = footprint(self.loss, outer, self.start(tasks), parts, self.rule, self.also)
        budget = budget_of(self.inner.memory_gb, self.tensors["device"])
        self.unroll, self.keep = choose(cost, self.inner.steps, budget, self.inner.snapshots)
