"""Every exact way to unroll the inner loop gives the same numbers, in float64, whatever is adapted and how it is fed.

The graph of all steps (`stored`) is the yardstick: it is itself held against central differences and against `higher`.
Errors are relative, norm(difference) / norm over all tensors of a kind: adapted weights, gradients of the start, of
what else learns and of the rates. (Tensor by tensor would divide noise by noise: key biases have no gradient.)
"""

import itertools
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from common.engine.derivatives import InnerLoss, product
from common.engine.inner import Adapted, adapt
from common.engine.lora import make_stackable
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, Momentum, UpdateRule
from common.engine.settings import RateGroup, RateSpace, Snapshots, Unroll
from common.engine.twice import activation, attention, linear, norm, policy
from common.engine.twice.lean import make_lean
from common.engine.weights import Weights, call, select, stack
from common.language.attention import ATTENTION, register

logger = logging.getLogger(__name__)  # measured errors: pytest --log-cli-level=INFO
VOCABULARY, LENGTH, ROWS = 13, 5, 3
TOLERANCE = 1e-9
EXAMPLES = settings(max_examples=15, derandomize=True, deadline=None, database=None)
RULES: dict[str, tuple[UpdateRule, float]] = {
    "sgd": (SGD(0.01), 0.1),
    "momentum": (Momentum(0.9, 0.01), 0.05),
    "adamw": (AdamW(), 0.01),
}
FAST = {"full": ["*"], "lora": ["*lora_*"], "partial": ["transformer.h.0.mlp.*", "*.ln_f.*"]}
DROPOUT = {"no dropout": (0.0, 0.0), "dropout": (0.2, 0.0), "dropout in attention too": (0.2, 0.2)}
SPLITS = [(3,), (1, 2), (2, 1), (1, 1, 1)]
Outcome = dict[str, Tensor]
"""Kind of number -> all of them, flat."""


@pytest.fixture(scope="module", autouse=True)
def every_tensor_is_large() -> Iterator[None]:
    """So that the hand-written pieces of a lean network run, and not what they fall back on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "SMALL", 0)
        yield


@dataclass(frozen=True)
class Case:
    """What is adapted, and how."""

    steps: int = 3
    keep: int = 0
    """Of a rebuilt unroll: steps that store their graph."""
    rule: str = "adamw"
    fast: str = "full"
    tied: bool = True
    dropout: str = "no dropout"
    tasks: int = 1
    stacked: bool = False
    split: tuple[int, ...] = (ROWS,)
    """Rows of each micro-batch."""
    space: RateSpace = RateSpace.raw
    per: RateGroup = RateGroup.tensor
    snapshots: Snapshots = Snapshots.device
    seed: int = 0


def any_case(random: Random) -> Case:
    """Every choice alike: hypothesis itself would mostly try the first few."""
    steps = random.randint(1, 6)
    return Case(
        steps=steps,
        keep=random.randrange(steps),
        rule=random.choice(list(RULES)),
        fast=random.choice(list(FAST)),
        tied=random.choice([True, False]),
        dropout=random.choice(list(DROPOUT)),
        tasks=random.randint(1, 4),
        stacked=random.choice([True, False]),
        split=random.choice(SPLITS),
        space=random.choice(list(RateSpace)),
        per=random.choice(list(RateGroup)),
        snapshots=random.choice(list(Snapshots)),
        seed=random.randrange(10),
    )


CASES = st.builds(any_case, st.randoms(use_true_random=True))


@cache
def network_of(fast: str, tied: bool, dropout: str, lean: bool) -> nn.Module:
    """A GPT-2 in training mode; the lean one has the same parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    register()
    outside, inside = DROPOUT[dropout]
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_positions=LENGTH,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        embd_pdrop=outside,
        resid_pdrop=outside,
        attn_pdrop=inside,
        tie_word_embeddings=tied,
        attn_implementation=ATTENTION if lean else "eager",
    )
    network: nn.Module = GPT2LMHeadModel(config)
    if fast == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=2,
            target_modules=["c_attn", "c_proj", "c_fc"],
            fan_in_fan_out=True,
            init_lora_weights=False,
            lora_dropout=outside,
        )
        network = get_peft_model(network, lora)
    if lean:
        make_lean(network)
    if fast == "lora":
        make_stackable(network)
    return network.double().train()


class Problem:
    """Networks, data and rates of a case; one outer gradient by any unroll."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rule, lr = RULES[case.rule]
        draw = torch.Generator().manual_seed(case.seed)
        shape = (case.tasks, ROWS, LENGTH)
        self.facts, self.questions = (torch.randint(VOCABULARY, shape, generator=draw) for _ in range(2))
        names = list(select(self.network(), FAST[case.fast]))
        self.rates = LearnedRates(names, steps=case.steps, start=lr, space=case.space, per=case.per).double()
        with torch.no_grad():
            spread = torch.rand(self.rates.numbers.shape, generator=draw, dtype=torch.double)
            self.rates.numbers.mul_(1 + 0.1 * spread)

    def network(self, lean: bool = False) -> nn.Module:
        return network_of(self.case.fast, self.case.tied, self.case.dropout, lean)

    def learners(self, lean: bool = False) -> tuple[Weights, list[Tensor]]:
        """Fast weights, and what else learns."""
        network = self.network(lean)
        start = select(network, FAST[self.case.fast])
        return start, [p for name, p in network.named_parameters() if p.requires_grad and name not in start]

    def loss(self, weights: Weights, ids: Tensor, lean: bool = False) -> Tensor:
        """Share of a micro-batch, ids [rows, length] -> [] or of a stack [tasks, rows, length] -> [tasks]."""
        network = self.network(lean)

        def one_task(weights: Weights, ids: Tensor) -> Tensor:
            scores = call(network, weights, input_ids=ids, use_cache=False).logits[:, :-1]
            return (
                nn.functional.cross_entropy(scores.transpose(1, 2), ids[:, 1:], reduction="none").mean(1).sum() / ROWS
            )

        if ids.dim() == 2:
            return one_task(weights, ids)
        if self.case.fast != "lora":
            losses: Tensor = torch.func.vmap(one_task, randomness="different")(weights, ids)
            return losses
        scores = call(network, weights, input_ids=ids.flatten(0, 1), use_cache=False).logits[:, :-1]
        each = nn.functional.cross_entropy(scores.transpose(1, 2), ids[..., 1:].flatten(0, 1), reduction="none")
        return each.view(len(ids), -1).sum(1) / (each.shape[1] * ROWS)

    def groups(self, start: Weights) -> list[tuple[Weights, Tensor, Tensor]]:
        """What is adapted at once: (start, facts, questions)."""
        if self.case.stacked:
            return [(stack(start, self.case.tasks), self.facts, self.questions)]
        return [(start, facts, question) for facts, question in zip(self.facts, self.questions, strict=True)]

    def solve(self, unroll: Unroll, *, lean: bool = False, split: Sequence[int] = (), **how: Any) -> Outcome:
        """Adapt every task and take the gradient of the sum of their outer losses; draws start at the case's seed."""
        start, others = self.learners(lean)
        outer, adapted, inner = [], [], []
        torch.manual_seed(self.case.seed)

        def loss(weights: Weights, ids: Tensor) -> Tensor:
            return self.loss(weights, ids, lean)

        for weights, facts, questions in self.groups(start):
            parts = facts.split(list(split or self.case.split), dim=-2)
            fast = adapt(
                loss,
                weights,
                parts,
                steps=self.case.steps,
                rule=self.rule,
                rates=self.rates,
                unroll=unroll,
                also=others,
                **how,
            )
            outer.append(loss(fast.weights, questions).sum())
            adapted += list(fast.weights.values())
            inner += fast.losses
        total = torch.stack(outer).sum()
        inputs = [*start.values(), *others, self.rates.numbers]
        found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        return {
            "adapted weights": flat(adapted),
            "inner losses": flat(inner),
            "outer loss": total.detach().view(1),
            "gradient of the start": flat(found[: len(start)]),
            "gradient of the others": flat(found[len(start) : -1]),
            "gradient of the rates": flat(found[-1:]),
        }


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]) if tensors else torch.zeros(0)


def error(found: Outcome, expected: Outcome) -> float:
    """Largest relative error of a kind."""
    assert all(value.isfinite().all() for value in (*found.values(), *expected.values()))
    kinds = [kind for kind, value in expected.items() if value.numel()]
    return max(((found[kind] - expected[kind]).norm() / expected[kind].norm()).item() for kind in kinds)


# ---- every exact strategy equals the stored graph


@EXAMPLES
@given(case=CASES)
@example(Case(6, 0, "adamw", "full", dropout="dropout", tasks=3, stacked=True, split=(1, 2)))
@example(Case(4, 0, "adamw", "lora", dropout="dropout", tasks=4, stacked=True, snapshots=Snapshots.host))
@example(Case(4, 1, "momentum", "lora", tied=False, dropout="dropout", tasks=2))
def test_every_exact_strategy_gives_the_numbers_of_the_stored_graph(case: Case) -> None:
    problem, how = Problem(case), {"keep": case.keep, "snapshots": case.snapshots}
    stored = problem.solve(Unroll.stored)
    assert stored["gradient of the rates"].ne(0).any() and stored["gradient of the start"].ne(0).any()
    errors = [error(problem.solve(Unroll.recompute, lean=lean, **how), stored) for lean in (False, True)]
    logger.info("relative errors %s of %s", errors, case)
    assert max(errors) < TOLERANCE


@EXAMPLES
@given(case=CASES)
def test_a_stack_gives_the_numbers_of_one_task_after_the_other(case: Case) -> None:
    """Without dropout: a stack draws its masks in another order."""
    alone, together = (Problem(replace(case, dropout="no dropout", stacked=stacked)) for stacked in (False, True))
    kinds = ["outer loss", "gradient of the start", "gradient of the others", "gradient of the rates"]
    expected, found = alone.solve(Unroll.stored), together.solve(Unroll.recompute, keep=case.keep)
    assert error({kind: found[kind] for kind in kinds}, {kind: expected[kind] for kind in kinds}) < TOLERANCE


@pytest.mark.parametrize("unroll", [unroll for unroll in Unroll if unroll not in (Unroll.none, Unroll.auto)])
@pytest.mark.parametrize("split", SPLITS[1:], ids=str)
@pytest.mark.parametrize("fast", FAST)
def test_micro_batches_of_unequal_size_give_the_numbers_of_the_whole_batch(
    fast: str, split: tuple[int, ...], unroll: Unroll
) -> None:
    problem = Problem(Case(fast=fast, steps=2))
    keep = 1 if unroll in (Unroll.truncate, Unroll.recompute) else 0
    whole, parts = (problem.solve(unroll, split=rows, keep=keep) for rows in ((ROWS,), split))
    assert error(parts, whole) < TOLERANCE


@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("rule", RULES)
def test_a_lean_network_gives_the_numbers_of_the_plain_one_and_a_whole_truncation_those_very_numbers(
    rule: str, fast: str, stacked: bool
) -> None:
    problem = Problem(Case(2, rule=rule, fast=fast, dropout="dropout", tasks=2, stacked=stacked))
    stored = problem.solve(Unroll.stored)
    assert error(problem.solve(Unroll.stored, lean=True), stored) < TOLERANCE
    whole = problem.solve(Unroll.truncate, keep=2)
    assert all(torch.equal(whole[kind], value) for kind, value in stored.items())


@pytest.mark.parametrize("rule", RULES)
def test_every_number_of_kept_steps_gives_the_same(rule: str) -> None:
    problem = Problem(Case(rule=rule, steps=4, fast="partial", dropout="dropout", split=(1, 2)))
    stored = problem.solve(Unroll.stored)
    found = [problem.solve(Unroll.recompute, keep=keep, snapshots=list(Snapshots)[keep % 2]) for keep in range(5)]
    errors = [error(one, stored) for one in found]
    logger.info("relative errors %s", errors)
    assert max(errors) < TOLERANCE


def test_the_pieces_written_by_hand_are_what_a_lean_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product with the Hessian uses all of them; the plain network, whose numbers they must give, none."""
    pieces = [linear._Backward, activation._Slope, norm._NormGradients, attention._Second]
    ran: set[str] = set()
    for piece in pieces:
        forward = piece.forward

        def spy(*args: Any, name: str = piece.__module__, forward: Callable[..., Any] = forward) -> Any:
            ran.add(name)
            return forward(*args)

        monkeypatch.setattr(piece, "forward", staticmethod(spy))
    problem = Problem(Case(fast="full", dropout="dropout"))
    for lean in (False, True):
        start, _ = problem.learners(lean)
        loss: InnerLoss = lambda w, ids, lean=lean: problem.loss(w, ids, lean)  # type: ignore[misc]  # noqa: E731
        product(loss, start, problem.facts[0], list(start.values()), [])
        assert ran == ({piece.__module__ for piece in pieces} if lean else set())


# ---- the stored graph is right


H = 1e-7
"""See tests/common/engine/test_inner.py."""


@pytest.mark.parametrize(("dropout", "stacked"), [("no dropout", False), ("dropout", True)])
@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("rule", RULES)
def test_the_gradient_is_that_of_central_differences(rule: str, fast: str, dropout: str, stacked: bool) -> None:
    """Along a unit direction that leans towards the gradient, in all that learns at once; dropout draws again."""
    problem = Problem(Case(steps=2, rule=rule, fast=fast, dropout=dropout, tasks=2, stacked=stacked, split=(1, 2)))
    found = problem.solve(Unroll.recompute, keep=1)
    start, others = problem.learners()
    learners = [*start.values(), *others, problem.rates.numbers]
    exact = torch.cat([value for kind, value in found.items() if kind.startswith("gradient")])
    direction = exact / exact.norm() + torch.nn.functional.normalize(torch.randn_like(exact), dim=0)
    direction /= direction.norm()
    kept = [tensor.detach().clone() for tensor in learners]

    def outer(h: float) -> float:
        torch.manual_seed(problem.case.seed)
        with torch.no_grad():
            for tensor, value, part in zip(learners, kept, direction.split([x.numel() for x in kept]), strict=True):
                tensor.copy_(value + h * part.view_as(value))
            total = 0.0
            for weights, facts, questions in problem.groups(start):
                parts = facts.split([1, 2], dim=-2)
                fast = adapt(
                    problem.loss,
                    weights,
                    parts,
                    steps=2,
                    rule=problem.rule,
                    rates=problem.rates,
                    unroll=Unroll.none,
                ).weights
                total += problem.loss(fast, questions).sum().item()
            for tensor, value in zip(learners, kept, strict=True):
                tensor.copy_(value)
        return total

    difference = (8 * (outer(H) - outer(-H)) - (outer(2 * H) - outer(-2 * H))) / (12 * H)
    relative = abs(difference / (exact @ direction).item() - 1)
    logger.info("relative error %.1e", relative)
    assert relative < 1e-6


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_stored_and_rebuilt_give_the_numbers_of_higher(rule: str, steps: int) -> None:
    """`higher` 0.2.1, a rate per tensor and step, heads tied.

    It adds eps to the root of the uncorrected second moment: with eps sqrt(1 - beta2^n) in its place the two formulas
    are one. AdamW without decay is its Adam.
    """
    higher = pytest.importorskip("higher")
    problem = Problem(Case(steps=steps, rule="sgd" if rule == "sgd" else "adamw"))
    problem.rule = SGD() if rule == "sgd" else AdamW(weight_decay=0.0)
    network, (start, _) = problem.network(), problem.learners()
    kind = torch.optim.SGD if rule == "sgd" else torch.optim.Adam
    inner = kind([{"params": [w]} for w in start.values()], lr=1.0)
    with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, optimizer):

        def loss(ids: Tensor) -> Tensor:
            scores = fast(input_ids=ids, use_cache=False).logits[:, :-1]
            return nn.functional.cross_entropy(scores.transpose(1, 2), ids[:, 1:])

        for step in range(steps):
            override: dict[str, list[Any]] = {"lr": list(problem.rates(step).values())}
            if rule == "adam":
                override["eps"] = [1e-8 * (1 - 0.999 ** (step + 1)) ** 0.5]
            optimizer.step(loss(problem.facts[0]), override=override)
        total = loss(problem.questions[0])
        found = torch.autograd.grad(total, [*start.values(), problem.rates.numbers])
    theirs = {
        "outer loss": total.detach().view(1),
        "gradient of the start": flat(found[:-1]),
        "gradient of the rates": flat(found[-1:]),
    }
    errors = [error(problem.solve(unroll), theirs) for unroll in (Unroll.stored, Unroll.recompute)]
    logger.info("relative errors %s", errors)
    assert max(errors) < 1e-8


# ---- random draws, and what is kept


@pytest.mark.parametrize("keep", [0, 1, 2])
@pytest.mark.parametrize("unroll", [Unroll.recompute, Unroll.truncate, Unroll.first_order])
@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
def test_the_random_generator_goes_on_as_after_stored_steps(unroll: Unroll, keep: int, stacked: bool) -> None:
    """Through the backward pass too, although it draws the masks again."""
    problem = Problem(Case(steps=2, dropout="dropout in attention too", split=(1, 2), tasks=2, stacked=stacked))
    problem.solve(Unroll.stored)
    after = torch.get_rng_state()
    problem.solve(unroll, keep=keep)
    assert torch.equal(torch.get_rng_state(), after)


class Kept:
    """A tensor that a graph has saved."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(steps: int, **strategy: Any) -> int:
    """Of the graph that `adapt` leaves behind."""
    problem = Problem(Case(steps=1))  # one rate a tensor, which all steps share
    start, others = problem.learners()
    alive: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept.tensor):
        fast: Adapted = adapt(
            problem.loss,
            start,
            [problem.facts[0]],
            steps=steps,
            rule=problem.rule,
            rates=problem.rates,
            also=others,
            **strategy,
        )
    assert all(w.requires_grad for w in fast.weights.values())
    return sum(kept.tensor.nbytes for kept in alive)


@pytest.mark.parametrize("unroll", [Unroll.truncate, Unroll.recompute])
def test_only_the_steps_that_are_kept_leave_a_graph(unroll: Unroll) -> None:
    sizes = [kept_bytes(8, unroll=unroll, keep=keep) for keep in range(5)]
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert kept_bytes(8, unroll=Unroll.stored) > sizes[-1]
    assert len(set(grown[1:])) == 1 and grown[0] > 0  # the first kept step has moments of its own to come from
    for keep in (0, 1, 3):
        assert kept_bytes(5, unroll=unroll, keep=keep) == sizes[keep]
    given = sum(w.nbytes + 8 for w in Problem(Case()).learners()[0].values())  # start weights and rates
    assert sizes[0] == (0 if unroll is Unroll.truncate else given)
