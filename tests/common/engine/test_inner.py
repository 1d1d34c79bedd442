"""The meta-gradient against central differences and plain autograd, every unroll, stacks, and what is never touched.

Step size of the differences. AdamW's first step is nearly g / (|g| + eps): where |g| is not far above eps it bends
within a distance of |g|, and differences taken across the bend are wrong by any amount. What the stencil moves g by
must therefore stay below the smallest gradients that are not zero by construction (about 1e-5 here), while rounding,
about 1e-15 / h, asks for a large h and a derivative that is not small. So: h = 1e-7 with the five-point stencil (error
h^4); directions of length 1 (a random one with entries of size 1 would already cross bends) that lean towards the
gradient; the coordinates of the largest derivatives; and for rates a step of 1e-7 in the rate itself, not in its log.
That leaves about 1e-8 of relative error, at the default eps of 1e-8; with h = 1e-6 it is 1e-9 for most draws of the
network, and arbitrary for a few.
Key biases of attention have a gradient of zero by construction (softmax does not see them), which leaves rounding noise
of 1e-19 in it: far below eps, so it moves nothing.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.outer import Outer
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, Momentum, RuleState, UpdateRule
from common.engine.settings import OuterConfig, RateGroup, RateSpace, Unroll
from common.engine.unroll.step import step
from common.engine.weights import Weights, call, leaves, select, stack, unstack
from common.errors import UserError

logger = logging.getLogger(__name__)  # measured errors: pytest --log-cli-level=INFO
VOCABULARY, LENGTH = 13, 7
H = 1e-7
TOLERANCE = 1e-6
RULES: dict[str, tuple[UpdateRule, float]] = {
    "sgd": (SGD(0.01), 0.1),
    "momentum": (Momentum(0.9, 0.01), 0.1),
    "adamw": (AdamW(), 0.01),
}


@dataclass
class Problem:
    """A network, what it memorises (inner loss) and what it is asked (outer loss)."""

    network: nn.Module
    facts: Tensor
    question: Tensor

    @property
    def start(self) -> Weights:
        return select(self.network)

    def inner(self, weights: Weights, _: object = None) -> Tensor:
        return next_token_loss(self.network, weights, self.facts)

    def outer(self, weights: Weights) -> Tensor:
        return next_token_loss(self.network, weights, self.question)


def next_token_loss(network: nn.Module, weights: Weights, ids: Tensor) -> Tensor:
    scores = call(network, weights, input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())


def gpt2(layers: int = 2, width: int = 8, spread: float = 0.3, positions: int = LENGTH) -> nn.Module:
    """Learned positions, LM head tied to the embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        n_positions=positions,
        initializer_range=spread,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config).eval().double()


def gpt_neox() -> nn.Module:
    """Rotary positions, LM head tied to the embedding."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
        rotary_pct=0.5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return GPTNeoXForCausalLM(config).eval().double()


@pytest.fixture(scope="module", params=["gpt2"])
def problem(request: pytest.FixtureRequest) -> Iterator[Problem]:
    """Tests that ask for the other network too parametrise this fixture."""
    torch.manual_seed(0)
    network = {"gpt2": gpt2, "gpt_neox": gpt_neox}[request.param]()
    softmax = nn.functional.softmax
    with pytest.MonkeyPatch.context() as patch:
        # GPT-NeoX asks for its softmax in float32 whatever the weights are; its rounding would drown the differences.
        patch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))
        yield Problem(network, torch.randint(VOCABULARY, (3, LENGTH)), torch.randint(VOCABULARY, (2, LENGTH - 1)))


def make_rates(problem: Problem, steps: int, lr: float, **kind: object) -> LearnedRates:
    """Rates around `lr`, each another one."""
    rates = LearnedRates(list(problem.start), steps=steps, start=lr, **kind).double()  # type: ignore[arg-type]
    with torch.no_grad():
        rates.numbers.mul_(1 + 0.1 * torch.rand_like(rates.numbers))
    return rates


def meta_gradient(
    problem: Problem, rates: LearnedRates, rule: UpdateRule, steps: int, unroll: Unroll = Unroll.stored, keep: int = 0
) -> tuple[Weights, Tensor, Weights]:
    """Of the outer loss, to the start and to the stored numbers of the rates; and the adapted weights."""
    start = problem.start
    fast = adapt(problem.inner, start, steps=steps, rule=rule, rates=rates, unroll=unroll, keep=keep).weights
    inputs = [*start.values(), rates.numbers]
    found = torch.autograd.grad(problem.outer(fast), inputs, allow_unused=True, materialize_grads=True)
    return dict(zip(start, found[:-1], strict=True)), found[-1], fast


def flat(weights: Weights) -> Tensor:
    return torch.cat([value.flatten() for value in weights.values()])


# ---- central differences


def five_point(f: Callable[[float], float]) -> float:
    """Derivative of `f` at 0 from central differences at H and 2 H; error of order H^4."""
    return (8 * (f(H) - f(-H)) - (f(2 * H) - f(-2 * H))) / (12 * H)


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def directions(gradient: Tensor, groups: list[Tensor]) -> list[Tensor]:
    """For `gradient` [n]: a random direction that leans towards it, and the largest coordinate of every group."""
    largest = [group[gradient[group].abs().argmax()] for group in groups]
    single = [nn.functional.one_hot(index, len(gradient)).to(gradient) for index in largest]
    return [unit(unit(gradient) + unit(torch.randn_like(gradient))), *single]


def worst_error(problem: Problem, rates: LearnedRates, rule: UpdateRule, steps: int) -> float:
    """Largest relative error of the meta-gradient over a random direction and several coordinates of each kind."""
    start = problem.start
    sizes = [w.numel() for w in start.values()]
    weights, numbers, _ = meta_gradient(problem, rates, rule, steps)
    kept, scale = (
        rates.numbers.detach().clone(),
        1.0 if rates.space is RateSpace.raw else 1 / rates.rates().max().item(),
    )

    def outer(direction: Tensor, rate_direction: Tensor, h: float) -> float:
        parts = direction.split(sizes)
        shifted = {n: w.detach() + h * d.view_as(w) for (n, w), d in zip(start.items(), parts, strict=True)}
        with torch.no_grad():
            rates.numbers.copy_(kept + h * scale * rate_direction)
            fast = adapt(problem.inner, shifted, steps=steps, rule=rule, rates=rates, unroll=Unroll.none).weights
            rates.numbers.copy_(kept)
            return problem.outer(fast).item()

    everywhere = list(torch.arange(sum(sizes)).split(sizes))
    blocks = sorted(everywhere[1:], key=lambda group: -flat(weights)[group].abs().max())
    per_step = list(torch.arange(numbers.numel()).view_as(numbers).T)
    tried = [
        *[(d, torch.zeros_like(numbers)) for d in directions(flat(weights), [everywhere[0], *blocks[:3]])],
        *[(torch.zeros(sum(sizes)).to(d), d.view_as(numbers)) for d in directions(numbers.flatten(), per_step)],
    ]
    errors = []
    for direction, rate_direction in tried:
        exact = flat(weights) @ direction + (numbers * rate_direction).sum() * scale
        found = five_point(lambda h, d=direction, r=rate_direction: outer(d, r, h))  # type: ignore[misc]
        errors.append(abs(found / exact.item() - 1))
    return max(errors)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", RULES)
def test_the_meta_gradient_is_that_of_central_differences(problem: Problem, name: str, steps: int) -> None:
    rule, lr = RULES[name]
    error = worst_error(problem, make_rates(problem, steps, lr), rule, steps)
    logger.info("relative error %.1e", error)
    assert error < TOLERANCE


@pytest.mark.parametrize("per", RateGroup)
@pytest.mark.parametrize("space", RateSpace)
def test_it_is_in_every_rate_space_and_group(problem: Problem, space: RateSpace, per: RateGroup) -> None:
    error = worst_error(problem, make_rates(problem, 2, 0.01, space=space, per=per), AdamW(), 2)
    logger.info("relative error %.1e", error)
    assert error < TOLERANCE


@pytest.mark.parametrize("problem", ["gpt_neox"], indirect=True)
@pytest.mark.parametrize("name", RULES)
def test_it_is_with_rotary_positions(problem: Problem, name: str) -> None:
    rule, lr = RULES[name]
    error = worst_error(problem, make_rates(problem, 2, lr), rule, 2)
    logger.info("relative error %.1e", error)
    assert error < TOLERANCE


def test_it_is_where_positions_are_never_used_and_their_gradient_is_exactly_zero() -> None:
    problem = Problem(
        gpt2(positions=LENGTH + 3), torch.randint(VOCABULARY, (3, LENGTH)), torch.randint(VOCABULARY, (2, LENGTH + 1))
    )
    rates = make_rates(problem, 2, 0.01)
    error = worst_error(problem, rates, AdamW(), 2)
    logger.info("relative error %.1e", error)
    assert error < TOLERANCE
    assert all(torch.isfinite(value).all() for value in meta_gradient(problem, rates, AdamW(), 2)[0].values())


# ---- the same written out by hand


@pytest.mark.parametrize("problem", ["gpt2", "gpt_neox"], indirect=True)
@pytest.mark.parametrize("name", RULES)
def test_the_meta_gradient_is_that_of_a_loop_written_out_with_torch_func(problem: Problem, name: str) -> None:
    steps, decay = 3, 0.01
    rule, lr = RULES[name]
    rates = make_rates(problem, steps, lr)
    sizes = [value.numel() for value in problem.start.values()]

    def unflatten(theta: Tensor) -> Weights:
        parts = theta.split(sizes)
        return {name: part.view_as(w) for (name, w), part in zip(problem.start.items(), parts, strict=True)}

    def whole(theta: Tensor, numbers: Tensor) -> Tensor:
        m = v = torch.zeros_like(theta)
        for index in range(steps):
            rate = torch.cat([r.expand(size) for r, size in zip(numbers[:, index], sizes, strict=True)])
            g = torch.func.grad(lambda t: problem.inner(unflatten(t)))(theta)
            if name == "sgd":
                theta = theta - rate * (g + decay * theta)
            elif name == "momentum":
                m = 0.9 * m + g + decay * theta
                theta = theta - rate * m
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                unbiased, spread = m / (1 - 0.9 ** (index + 1)), v / (1 - 0.999 ** (index + 1))
                theta = theta - rate * decay * theta - rate * unbiased / (spread.clamp(min=1e-60).sqrt() + 1e-8)
        return problem.outer(unflatten(theta))

    by_hand = torch.func.grad(whole, argnums=(0, 1))(flat(problem.start).detach(), rates.numbers.detach())
    weights, numbers, _ = meta_gradient(problem, rates, rule, steps)
    torch.testing.assert_close(flat(weights), by_hand[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(numbers, by_hand[1], rtol=1e-8, atol=1e-10)


def test_a_quadratic_has_its_closed_form() -> None:
    """Loss a w^2 / 2, outer loss w: w_N = w_0 prod (1 - r_n a), so dw_N/dw_0 and dw_N/dr_n are products."""
    a, w = 2.0, torch.tensor(3.0, dtype=torch.double, requires_grad=True)
    rates = LearnedRates(["w"], steps=3, start=0.1).double()
    with torch.no_grad():
        rates.numbers.copy_(torch.tensor([[0.1, 0.2, 0.3]]))
    fast = adapt(lambda x, _: a * x["w"] ** 2 / 2, {"w": w}, steps=3, rule=SGD(), rates=rates)
    found = torch.autograd.grad(fast.weights["w"], [w, rates.numbers])
    assert found[0].item() == pytest.approx(0.8 * 0.6 * 0.4)
    assert found[1].tolist()[0] == pytest.approx([-6 * 0.6 * 0.4, -6 * 0.8 * 0.4, -6 * 0.8 * 0.6])
    assert [loss.item() for loss in fast.losses] == pytest.approx([9.0, 9 * 0.8**2, 9 * 0.48**2])
    assert not any(loss.requires_grad for loss in fast.losses)


# ---- cheaper unrolls


@pytest.mark.parametrize("name", RULES)
def test_truncation_that_keeps_every_step_is_the_full_unroll(problem: Problem, name: str) -> None:
    rule, lr = RULES[name]
    rates = make_rates(problem, 3, lr)
    full, numbers, fast = meta_gradient(problem, rates, rule, 3)
    kept, kept_numbers, kept_fast = meta_gradient(problem, rates, rule, 3, Unroll.truncate, keep=3)
    assert torch.equal(flat(full), flat(kept)) and torch.equal(numbers, kept_numbers)
    assert torch.equal(flat(fast), flat(kept_fast))


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("name", RULES)
def test_truncation_is_the_full_unroll_of_the_last_steps_from_where_the_others_ended(
    problem: Problem, name: str, keep: int
) -> None:
    rule, lr = RULES[name]
    steps, start = 4, problem.start
    rates = make_rates(problem, steps, lr)
    weights, state = leaves(start), RuleState()
    for index in range(steps):
        if index == steps - keep:
            middle = weights = leaves(weights)
        found = torch.autograd.grad(problem.inner(weights), list(weights.values()), create_graph=index >= steps - keep)
        with torch.set_grad_enabled(index >= steps - keep):
            weights, state = step(rule, weights, dict(zip(start, found, strict=True)), state, rates(index))
        if index < steps - keep:
            weights = leaves(weights)
    by_hand = torch.autograd.grad(problem.outer(weights), [*middle.values(), rates.numbers])

    found_weights, numbers, fast = meta_gradient(problem, rates, rule, steps, Unroll.truncate, keep)
    torch.testing.assert_close(flat(fast), flat(weights), rtol=1e-12, atol=1e-15)  # attention rounds by what is needed
    torch.testing.assert_close(
        flat(found_weights), torch.cat([g.flatten() for g in by_hand[:-1]]), rtol=1e-12, atol=1e-15
    )
    torch.testing.assert_close(numbers, by_hand[-1], rtol=1e-12, atol=1e-15)
    assert numbers[:, : steps - keep].eq(0).all() and numbers[:, steps - keep :].ne(0).any(0).all()


@pytest.mark.parametrize("name", RULES)
def test_truncation_that_keeps_nothing_hands_the_gradient_at_the_adapted_point_to_the_start(
    problem: Problem, name: str
) -> None:
    """First-order MAML as published: the Jacobian of the whole inner loop is the identity."""
    rule, lr = RULES[name]
    rates = make_rates(problem, 2, lr)
    found, numbers, fast = meta_gradient(problem, rates, rule, 2, Unroll.truncate, keep=0)
    point = leaves(fast)
    there = torch.autograd.grad(problem.outer(point), list(point.values()))
    assert torch.equal(flat(found), torch.cat([g.flatten() for g in there]))
    assert numbers.eq(0).all()


def test_first_order_gives_start_and_rates_their_gradient_with_inner_gradients_held_constant(problem: Problem) -> None:
    """For SGD the start gets the gradient at the adapted point, and the rate of step n minus its product with g_n."""
    rates = make_rates(problem, 2, 0.1)
    found, numbers, fast = meta_gradient(problem, rates, SGD(), 2, Unroll.first_order)
    point = leaves(fast)
    there = dict(zip(point, torch.autograd.grad(problem.outer(point), list(point.values())), strict=True))
    torch.testing.assert_close(flat(found), flat(there), rtol=1e-12, atol=0)

    weights = problem.start
    for index in range(2):
        weights = leaves(weights)
        g = dict(zip(weights, torch.autograd.grad(problem.inner(weights), list(weights.values())), strict=True))
        by_hand = torch.stack([-(there[name] * g[name]).sum() for name in weights])
        torch.testing.assert_close(numbers[:, index], by_hand, rtol=1e-10, atol=1e-14)
        weights = {name: w.detach() - rates(index)[name].detach() * g[name] for name, w in weights.items()}


def test_first_order_is_close_to_the_exact_gradient_at_small_rates_and_far_from_it_at_large_ones() -> None:
    """AdamW, three layers, five facts of twelve tokens: second order is a correction that grows with the rate.

    How large it is at the small rate depends on the smallest gradients of the network drawn: other seeds give from 0.97
    to 0.9999 here, and far less where a gradient is near eps.
    """
    problem = Problem(
        gpt2(layers=3, width=32, spread=0.02, positions=12),
        torch.randint(VOCABULARY, (5, 12)),
        torch.randint(VOCABULARY, (2, 12)),
    )
    for steps in (1, 2, 4):
        cosine = {}
        for lr in (3e-5, 1e-3):
            rates = LearnedRates(list(problem.start), steps=steps, start=lr).double()
            exact, _, _ = meta_gradient(problem, rates, AdamW(), steps)
            first, numbers, _ = meta_gradient(problem, rates, AdamW(), steps, Unroll.first_order)
            assert torch.isfinite(flat(exact)).all() and numbers.ne(0).any()
            cosine[lr] = torch.cosine_similarity(flat(exact), flat(first), dim=0).item()
        logger.info("cosine with the exact gradient, %d steps: %s", steps, cosine)
        assert 0.9 < cosine[3e-5] < 0.9999
        assert cosine[1e-3] < 0.9


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.first_order])
def test_a_short_training_run_lowers_the_outer_loss_and_moves_the_rates(unroll: Unroll) -> None:
    network = gpt2(layers=1)
    facts = torch.randint(VOCABULARY, (4, 2, LENGTH))
    rates = LearnedRates(list(select(network)), steps=2, start=0.01, space=RateSpace.exp).double()
    outer = Outer(OuterConfig(lr=0.01, rates_lr=0.1, clip=1.0, warmup=0.0), network, rates, total_steps=25)
    before = rates.rates().detach().clone()

    def one_loss(task: int) -> Tensor:
        """Learn one order of the same sentences, be asked for the other."""
        fast = adapt(
            lambda w, _: next_token_loss(network, w, facts[task]),
            select(network),
            steps=2,
            rule=AdamW(),
            rates=rates,
            unroll=unroll,
        ).weights
        return next_token_loss(network, fast, facts[task].flip(0))

    losses = []
    for _ in range(25):
        losses.append(sum(outer.accumulate(one_loss(task)) for task in range(4)))
        assert rates.numbers.grad is not None and rates.numbers.grad.ne(0).any(0).all()
        assert all(w.grad is not None and w.grad.ne(0).any() for w in select(network).values())
        outer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert (rates.rates() - before).abs().max() > 1e-3


def test_without_an_outer_gradient_the_adapted_weights_are_the_same_and_hold_no_graph(problem: Problem) -> None:
    for rule, lr in RULES.values():
        rates = make_rates(problem, 3, lr)
        _, _, exact = meta_gradient(problem, rates, rule, 3)
        with torch.no_grad():  # evaluation usually stands in one
            fast = adapt(problem.inner, problem.start, steps=3, rule=rule, rates=rates, unroll=Unroll.none).weights
        assert torch.equal(flat(fast), flat(exact))
        assert all(w.grad_fn is None and not w.requires_grad for w in fast.values())


@pytest.mark.parametrize(
    ("unroll", "keep"),
    [
        (Unroll.first_order, 0),
        *[(Unroll.truncate, keep) for keep in (0, 2, 3)],
        *[(Unroll.recompute, keep) for keep in (0, 2, 3)],
    ],
)
def test_every_unroll_gives_the_same_adapted_weights_and_losses(problem: Problem, unroll: Unroll, keep: int) -> None:
    rates = make_rates(problem, 3, 0.01)
    exact = adapt(problem.inner, problem.start, steps=3, rule=AdamW(), rates=rates)
    other = adapt(problem.inner, problem.start, steps=3, rule=AdamW(), rates=rates, unroll=unroll, keep=keep)
    assert torch.equal(flat(exact.weights), flat(other.weights))
    assert exact.losses == other.losses and len(exact.losses) == 3


# ---- many tasks at once, some weights only


@pytest.mark.parametrize("patterns", [["*"], ["transformer.h.0.*", "*.ln_f.bias"]], ids=["all", "partial"])
@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute, Unroll.first_order, Unroll.truncate])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_stacked_tasks_equal_one_by_one_in_values_and_outer_gradient(
    problem: Problem, patterns: list[str], unroll: Unroll, name: str
) -> None:
    tasks, steps, (rule, lr) = 3, 2, RULES[name]
    facts = torch.randint(VOCABULARY, (tasks, 2, LENGTH))
    questions = torch.randint(VOCABULARY, (tasks, 2, LENGTH))
    start = select(problem.network, patterns)
    rates = LearnedRates(list(start), steps=steps, start=lr).double()
    parameters = [*problem.network.parameters(), rates.numbers]  # slow weights that are not fast get a gradient too
    keep = 1 if unroll is Unroll.truncate else 0

    def run(loss_of: Callable[[Weights, Tensor], Tensor], start: Weights, facts: Tensor):  # noqa: ANN202
        return adapt(
            loss_of, start, [facts], steps=steps, rule=rule, rates=rates, unroll=unroll, keep=keep, also=parameters[:-1]
        )

    def single(weights: Weights, ids: Tensor) -> Tensor:
        return next_token_loss(problem.network, weights, ids)

    alone = [run(single, start, facts[task]) for task in range(tasks)]
    loss = sum(single(fast.weights, questions[task]) for task, fast in enumerate(alone))
    alone_gradient = torch.autograd.grad(loss, parameters)

    together = run(torch.func.vmap(single), stack(start, tasks), facts)
    stacked_loss = torch.func.vmap(single)(together.weights, questions).sum()
    stacked_gradient = torch.autograd.grad(stacked_loss, parameters)

    close = {"rtol": 1e-10, "atol": 1e-10}
    assert set(together.weights) == set(start) and (len(start) == len(problem.start)) == (patterns == ["*"])
    for task, fast in enumerate(alone):
        torch.testing.assert_close(unstack(together.weights, task), fast.weights, **close)
        torch.testing.assert_close([loss[task] for loss in together.losses], fast.losses, **close)
    torch.testing.assert_close(stacked_loss, loss, **close)
    torch.testing.assert_close(stacked_gradient, alone_gradient, **close)


def test_weights_that_are_not_fast_get_their_gradient_through_the_inner_steps_as_well(problem: Problem) -> None:
    start = select(problem.network, ["transformer.h.0.mlp.*"])
    rates = LearnedRates(list(start), steps=2, start=0.1).double()
    slow = problem.network.get_parameter("transformer.ln_f.weight")
    direction = torch.randn_like(slow)

    def outer(unroll: Unroll) -> Tensor:
        also = list(problem.network.parameters())
        fast = adapt(problem.inner, start, steps=2, rule=SGD(), rates=rates, unroll=unroll, also=also).weights
        return problem.outer(fast)

    def shifted(h: float) -> float:
        kept = slow.detach().clone()
        with torch.no_grad():
            slow.add_(direction, alpha=h)
        value = outer(Unroll.none).item()
        with torch.no_grad():
            slow.copy_(kept)
        return value

    differences = five_point(shifted)
    for unroll in (Unroll.stored, Unroll.recompute):
        (exact,) = torch.autograd.grad(outer(unroll), [slow])
        assert differences == pytest.approx((exact * direction).sum().item(), rel=TOLERANCE)


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute, Unroll.first_order, Unroll.none])
def test_a_start_that_asks_for_no_gradient_adapts_all_the_same_and_the_rates_still_learn(
    problem: Problem, unroll: Unroll
) -> None:
    rates = make_rates(problem, 2, 0.01)
    learning = adapt(problem.inner, problem.start, steps=2, rule=AdamW(), rates=rates, unroll=unroll).weights
    frozen_start = {name: w.detach() for name, w in problem.start.items()}
    frozen = adapt(problem.inner, frozen_start, steps=2, rule=AdamW(), rates=rates, unroll=unroll).weights
    assert torch.equal(flat(frozen), flat(learning))
    assert not any(w.requires_grad for w in frozen_start.values())
    if unroll is not Unroll.none:
        gradients = [torch.autograd.grad(problem.outer(fast), [rates.numbers])[0] for fast in (frozen, learning)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_a_weight_that_the_loss_does_not_reach_only_decays() -> None:
    start = {name: torch.ones(2, dtype=torch.double, requires_grad=True) for name in ("used", "unused")}
    rates = LearnedRates(list(start), steps=2, start=0.1).double()
    fast = adapt(
        lambda w, _: w["used"].square().sum(), start, steps=2, rule=AdamW(weight_decay=0.5), rates=rates
    ).weights
    torch.testing.assert_close(
        fast["unused"].detach(), torch.full((2,), 0.95**2, dtype=torch.double), rtol=1e-6, atol=0
    )
    found = torch.autograd.grad(fast["unused"].sum(), [start["unused"], rates.numbers])
    assert all(torch.isfinite(value).all() for value in found)


# ---- what is never touched, and the edges


@pytest.mark.parametrize("unroll", sorted(set(Unroll) - {Unroll.auto}))  # auto is one of the others, found out first
def test_neither_the_start_nor_the_module_is_written_to(problem: Problem, unroll: Unroll) -> None:
    start = problem.start
    rates = make_rates(problem, 2, 0.01)
    watched = [*start.values(), *problem.network.parameters(), *problem.network.buffers(), rates.numbers]
    before = [(value.detach().clone(), value._version) for value in watched]
    names = list(start)
    fast = adapt(problem.inner, start, steps=2, rule=AdamW(), rates=rates, unroll=unroll).weights
    for value, (kept, version) in zip(watched, before, strict=True):
        assert torch.equal(value, kept) and value._version == version and value.grad is None
    assert list(start) == names == list(fast)
    assert not {w.data_ptr() for w in fast.values()} & {w.data_ptr() for w in start.values()}


def test_extra_steps_reuse_the_last_rate(problem: Problem) -> None:
    short, long = make_rates(problem, 2, 0.05), make_rates(problem, 4, 0.05)
    with torch.no_grad():
        long.numbers.copy_(short.numbers[:, [0, 1, 1, 1]])
    found = [
        adapt(problem.inner, problem.start, steps=4, rule=AdamW(), rates=rates, unroll=Unroll.none)
        for rates in (short, long)
    ]
    assert torch.equal(flat(found[0].weights), flat(found[1].weights)) and found[0].losses == found[1].losses


def test_every_call_starts_with_fresh_state(problem: Problem) -> None:
    rates = make_rates(problem, 2, 0.01)
    rule = Momentum(0.9)
    first, second = (adapt(problem.inner, problem.start, steps=2, rule=rule, rates=rates).weights for _ in range(2))
    assert torch.equal(flat(first), flat(second))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"steps": 0}, r"^inner\.steps=0: at least one inner step is needed; use a value of 1 or more$"),
        (
            {"steps": 2, "unroll": Unroll.truncate, "keep": 3},
            r"^inner\.keep=3 with inner\.steps=2: use a value between 0 and 2$",
        ),
        (
            {"steps": 2, "unroll": Unroll.truncate, "keep": -1},
            r"^inner\.keep=-1 with inner\.steps=2: use a value between 0 and 2$",
        ),
    ],
)
def test_steps_out_of_range_are_refused(problem: Problem, values: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        adapt(problem.inner, problem.start, rule=SGD(), rates=make_rates(problem, 2, 0.1), **values)


def test_rates_of_other_weights_are_refused(problem: Problem) -> None:
    rates = LearnedRates(["transformer.wte.weight"], steps=1, start=0.1)
    start = select(problem.network, ["*.wte.weight", "*.ln_f.bias"])
    with pytest.raises(ValueError, match=r"no inner rate for \['transformer\.ln_f\.bias'\]: make the rates from"):
        adapt(problem.inner, start, steps=1, rule=SGD(), rates=rates)
