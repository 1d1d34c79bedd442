"""The outer step against a plain torch loop, over one process and two, and what it refuses."""

import copy
import json
import math
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.outer import Outer, share_of_peak
from common.engine.rates import LearnedRates
from common.engine.rules import SGD
from common.engine.settings import OuterConfig, Schedule
from common.engine.weights import call, select
from common.errors import UserError

REMEDY = (
    ": the run has diverged and stops before touching the weights; lower inner.lr or outer.lr, "
    "keep learned rates positive with inner.space=exp, or lower outer.clip"
)
Problem = tuple[Tensor, Tensor, str]


class TwoHeads(nn.Module):
    """Problems of kind 'odd' and 'even' reach different heads, so a rank may have no gradient for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.heads = nn.ModuleDict({"even": nn.Linear(4, 1), "odd": nn.Linear(4, 1)})
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Tensor, kind: str) -> Tensor:
        return self.heads[kind](self.norm(self.body(x).tanh()))


def make() -> tuple[nn.Module, LearnedRates]:
    torch.manual_seed(1)
    network = TwoHeads().double()
    return network, LearnedRates(list(select(network, ["body.*"])), steps=2, start=0.1).double()


def problems() -> list[Problem]:
    torch.manual_seed(2)
    kinds = ["even", "odd", "even", "odd"]
    return [(torch.randn(5, 3).double(), torch.randn(5, 1).double(), kind) for kind in kinds]


def problem_loss(network: nn.Module, rates: LearnedRates, problem: Problem) -> Tensor:
    """Outer loss after two inner steps of the body."""
    x, y, kind = problem
    error = lambda fast, part: (call(network, fast, x[part], kind) - y[part]).square().mean()  # noqa: E731
    fast = adapt(
        lambda weights, _: error(weights, slice(0, 3)), select(network, ["body.*"]), steps=2, rule=SGD(), rates=rates
    )
    return error(fast.weights, slice(3, 5))


def losses(network: nn.Module, rates: LearnedRates, given: list[Problem]) -> Iterator[Tensor]:
    return (problem_loss(network, rates, problem) for problem in given)


def accumulate(outer: Outer, given: Iterable[Tensor]) -> float:
    return sum(outer.accumulate(loss) for loss in given)


def values(network: nn.Module, rates: LearnedRates) -> list[Tensor]:
    return [p.detach().clone() for p in (*network.parameters(), rates.numbers)]


CONFIG: dict[str, Any] = {"lr": 0.02, "rates_lr": 0.05, "weight_decay": 0.3, "clip": 0.5, "warmup": 0.25}


def train(outer: Outer, network: nn.Module, rates: LearnedRates, steps: int) -> list[float]:
    """`steps` outer steps of two batches of two problems; the norms."""
    norms = []
    for _ in range(steps):
        for batch in (problems()[:2], problems()[2:]):
            accumulate(outer, losses(network, rates, batch))
        norms.append(outer.step())
    return norms


@pytest.mark.parametrize("clip", [0.5, 0.0])
def test_training_equals_a_plain_torch_loop(clip: float) -> None:
    network, rates = make()
    norms = train(Outer(OuterConfig(**CONFIG | {"clip": clip}), network, rates, total_steps=8), network, rates, 8)

    theirs, their_rates = make()
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    vectors = [p for p in theirs.parameters() if p.dim() == 1 and p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.3, "lr": 0.02},
            {"params": vectors, "weight_decay": 0.0, "lr": 0.02},
            {"params": [their_rates.numbers], "weight_decay": 0.0, "lr": 0.05},
        ]
    )
    peaks = [0.02, 0.02, 0.05]
    by_hand = [1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]  # two of eight steps of warm-up, then down
    for share, norm in zip(by_hand, norms, strict=True):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = share * peak
        optimizer.zero_grad()
        torch.stack([problem_loss(theirs, their_rates, p) for p in problems()]).sum().backward()
        found = nn.utils.clip_grad_norm_([*matrices, *vectors, their_rates.numbers], clip or math.inf)
        optimizer.step()
        assert norm == pytest.approx(found.item(), rel=1e-12)
    for ours, other in zip(values(network, rates), values(theirs, their_rates), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-14)
    assert (max(norms) > 0.5) and not torch.equal(rates.numbers, make()[1].numbers)


def test_only_matrices_decay_and_nothing_frozen_or_static_is_trained() -> None:
    network, rates = make()
    groups = Outer(OuterConfig(**CONFIG), network, rates, total_steps=4).optimizer.param_groups
    decayed, plain, numbers = ({id(p) for p in group["params"]} for group in groups)
    named = dict(network.named_parameters())
    matrices = {"body.weight", "heads.even.weight", "heads.odd.weight", "unused"}
    assert decayed == {id(named[name]) for name in matrices}
    assert plain == {id(named[name]) for name in named.keys() - matrices - {"frozen"}}
    assert numbers == {id(rates.numbers)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0, 0.0]
    assert [group["initial_lr"] for group in groups] == [0.02, 0.02, 0.05]

    rates.requires_grad_(False)
    for given in (rates, None):
        assert len(Outer(OuterConfig(**CONFIG), network, given, total_steps=4).optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ("warm", "total", "shares"),
    [
        (2, 6, [1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
        (0, 4, [1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
        (1, 3, [1, 1, 1 / 2, 0]),
        (3, 3, [1 / 3, 2 / 3, 1, 0]),
        (0, 1, [1, 0]),
    ],
)
def test_the_rate_rises_linearly_to_its_peak_and_falls_linearly_to_zero(
    warm: int, total: int, shares: list[float]
) -> None:
    assert [share_of_peak(step, warm, total) for step in range(len(shares))] == pytest.approx(shares)


def test_a_cosine_falls_slowly_at_both_ends_and_like_torchs_own() -> None:
    shares = [share_of_peak(step, 2, 8, Schedule.cosine) for step in range(10)]
    assert shares[:3] == [0.5, 1.0, 1.0] and shares[8:] == [0.0, 0.0]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for share in shares[2:9]:
        assert share == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
    linear = [share_of_peak(step, 2, 8) for step in range(10)]
    assert shares[3] > linear[3] and shares[5] == pytest.approx(linear[5]) and shares[7] < linear[7]
    assert [share_of_peak(step, 0, 1, Schedule.cosine) for step in range(3)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("schedule", Schedule)
def test_the_optimiser_takes_the_schedule_that_it_is_given_and_continues_it(schedule: Schedule) -> None:
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, 4, schedule)
    expected = [pytest.approx(0.02 * share_of_peak(step, 1, 4, schedule)) for step in range(4)]
    seen = []
    for step in range(4):
        if step == 2:
            state = copy.deepcopy(outer.state_dict())
            outer = Outer(OuterConfig(**CONFIG), network, rates, 4, schedule)
            outer.load_state_dict(state)
        seen.append(outer.optimizer.param_groups[0]["lr"])
        train(outer, network, rates, 1)
    assert seen == expected


def test_the_schedule_moves_all_groups_in_proportion() -> None:
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=4)  # one step of warm-up
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in outer.optimizer.param_groups])
        train(outer, network, rates, 1)
    assert seen == [pytest.approx([s * 0.02, s * 0.02, s * 0.05]) for s in (1, 1, 2 / 3, 1 / 3)]


@pytest.mark.parametrize(("clip", "scale"), [(0.1, 0.1 / 5), (10.0, 1.0), (0.0, 1.0)])
def test_gradients_above_the_clip_are_scaled_to_it_and_the_norm_before_is_returned(clip: float, scale: float) -> None:
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.y = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    point = Point()
    outer = Outer(OuterConfig(clip=clip, warmup=0.0), point, None, total_steps=1)
    assert accumulate(outer, [3 * point.x, 4 * point.y]) == 0.0
    seen: list[float] = []
    outer.optimizer.register_step_pre_hook(lambda *_: seen.extend([point.x.grad.item(), point.y.grad.item()]))  # type: ignore[union-attr]
    assert outer.step() == 5.0
    assert seen == pytest.approx([3 * scale, 4 * scale], rel=1e-5)


def test_losses_are_summed_and_sent_backward_one_at_a_time() -> None:
    network, rates = make()
    outer = Outer(OuterConfig(), network, rates, total_steps=4)
    gradients: list[Tensor | None] = []

    def watched() -> Iterator[Tensor]:
        for loss in losses(network, rates, problems()):
            gradients.append(rates.numbers.grad if rates.numbers.grad is None else rates.numbers.grad.clone())
            yield loss

    total = accumulate(outer, watched())
    assert gradients[0] is None
    for index in (1, 2, 3):
        expected = torch.autograd.grad(sum(losses(network, rates, problems()[:index])), [rates.numbers])[0]
        assert gradients[index] is not None
        torch.testing.assert_close(gradients[index], expected, rtol=1e-12, atol=1e-14)
    assert total == pytest.approx(sum(loss.item() for loss in losses(network, rates, problems())))
    outer.step()
    assert all(p.grad is None for p in outer.parameters)


# ---- refusals


def refused(outer: Outer, act: Callable[[], object], text: str, network: nn.Module, rates: LearnedRates) -> None:
    """`act` raises exactly `text`, changes no weight and leaves no gradient; training then goes on."""
    before, state = values(network, rates), copy.deepcopy(outer.state_dict())
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        act()
    assert all(torch.equal(a, b) for a, b in zip(before, values(network, rates), strict=True))
    assert str(outer.state_dict()) == str(state)
    assert all(p.grad is None for p in outer.parameters)
    train(outer, network, rates, 1)
    assert all(torch.isfinite(value).all() for value in values(network, rates))


@pytest.mark.parametrize(("factor", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_not_finite_is_refused_and_named(factor: float, shown: str) -> None:
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=8)
    train(outer, network, rates, 2)
    broken = (loss if index else loss * factor for index, loss in enumerate(losses(network, rates, problems()), -1))
    refused(outer, lambda: accumulate(outer, broken), f"outer loss is {shown}{REMEDY}", network, rates)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    """A finite loss with an infinite derivative."""
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=8)
    train(outer, network, rates, 2)
    accumulate(outer, losses(network, rates, problems()))
    outer.accumulate((rates.numbers - rates.numbers.detach()).abs().sum().sqrt())  # the root of 0
    refused(outer, outer.step, f"norm of the outer gradient is nan{REMEDY}", network, rates)


# ---- continuation and several processes


def test_a_run_restored_from_its_state_continues_identically() -> None:
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=8)
    train(outer, network, rates, 3)
    saved = copy.deepcopy((network.state_dict(), rates.state_dict(), outer.state_dict()))
    norms = train(outer, network, rates, 5)

    other, other_rates = make()
    again = Outer(OuterConfig(**CONFIG), other, other_rates, total_steps=8)
    for target, state in zip((other, other_rates, again), saved, strict=True):
        target.load_state_dict(state)
    assert train(again, other, other_rates, 5) == norms
    assert all(torch.equal(a, b) for a, b in zip(values(network, rates), values(other, other_rates), strict=True))
    assert str(again.state_dict()) == str(outer.state_dict())


def one_rank(rank: int, ranks: int, folder: Path) -> None:
    """A process of the next test: train on its share; then one rank meets a NaN; then only the other has a problem."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=8)
    norms = []
    for _ in range(3):
        accumulate(outer, losses(network, rates, problems()[rank::ranks]))
        norms.append(outer.step())
    trained = values(network, rates)

    seen = outer.accumulate(problem_loss(network, rates, problems()[rank]) * (math.nan if rank else 1.0))
    try:
        outer.step()
        message = "nothing was refused"
    except UserError as error:
        message = str(error)
    intact = all(torch.equal(a, b) for a, b in zip(trained, values(network, rates), strict=True))

    if rank == 0:
        outer.accumulate(problem_loss(network, rates, problems()[0]))
    norms.append(outer.step())
    torch.save((trained, values(network, rates)), folder / f"{rank}.pt")
    report = {"norms": norms, "message": message, "finite": math.isfinite(seen), "intact": intact}
    (folder / f"{rank}.json").write_text(json.dumps(report))
    dist.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that takes the group down


def test_two_processes_equal_one_with_all_their_problems_and_refuse_together(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=one_rank, args=(rank, 2, tmp_path), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()

    network, rates = make()
    outer = Outer(OuterConfig(**CONFIG), network, rates, total_steps=8)
    norms = []
    for _ in range(3):
        accumulate(outer, losses(network, rates, problems()))
        norms.append(outer.step())
    trained = values(network, rates)
    outer.accumulate(problem_loss(network, rates, problems()[0]))
    norms.append(outer.step())
    alone = (trained, values(network, rates))

    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    together = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for stage in (0, 1):
        for one, first, second in zip(alone[stage], together[0][stage], together[1][stage], strict=True):
            assert torch.equal(first, second)
            torch.testing.assert_close(one, first, rtol=1e-12, atol=1e-14)
    assert reports[0]["norms"] == reports[1]["norms"] == pytest.approx(norms, rel=1e-12)
    assert all(report["intact"] for report in reports)
    assert [report["finite"] for report in reports] == [True, False]
    assert reports[0]["message"] == f"an outer loss on another rank is not finite{REMEDY}"
    assert reports[1]["message"] == f"outer loss is nan{REMEDY}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_that_are_too_coarse_for_their_steps_are_told(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    Outer(OuterConfig(), nn.Linear(2, 2, dtype=dtype), None, 10)
    assert ("round to nothing" in caplog.text) is (dtype is torch.bfloat16)
