"""The loop over attack steps, its kinds, and what it leaves alone, against loops written by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from fal.adversary.apgd import checkpoints
from fal.adversary.balls import L2, Ball, Linf, ball_of, normals
from fal.adversary.config import AttackConfig, Kind, Loss, Norm, Start
from fal.adversary.gains import (
    Classifier,
    cross_entropy_gain,
    dlr_gain,
    kl_gain,
    margin_gain,
    targeted_dlr_gain,
)
from fal.adversary.starts import STARTS
from fal.attack import attack
from tests.fal.pictures import CLASSES, draws_of, learnt, pictures


def slope(network: nn.Module, at: Tensor, y: Tensor, gain=cross_entropy_gain) -> tuple[Tensor, Tensor]:
    """Gradient by the points alone, and the gain of each."""
    at = at.clone().requires_grad_()
    values = gain(network(at), y)
    return torch.autograd.grad(values.sum(), at)[0], values.detach()


def by_hand(network: nn.Module, x: Tensor, y: Tensor, config: AttackConfig, start: Tensor) -> list[Tensor]:
    """Every point of a path of PGD or MIM in the L-inf ball."""
    path, velocity = [start], torch.zeros_like(x)
    for _ in range(config.steps):
        gradient, _ = slope(network, path[-1], y)
        velocity = velocity + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        at = path[-1] + config.length * (velocity if config.kind is Kind.mim else gradient).sign()
        path.append(torch.minimum(torch.maximum(at, x - config.eps), x + config.eps).clamp(0, 1))
    return path


@pytest.mark.parametrize("kind", [Kind.fgsm, Kind.pgd, Kind.mim])
def test_steps_are_those_of_a_loop_by_hand(kind: Kind) -> None:
    x, y = pictures(12, seed=2)
    config = AttackConfig(kind, eps=0.05, steps=1 if kind is Kind.fgsm else 6, start=Start.random)
    start = (x + 0.05 * (2 * draws_of(x)(0) - 1)).clamp(0, 1)
    known = by_hand(learnt(), x, y, config, start)[-1]
    found = attack(Classifier(learnt(), y, cross_entropy_gain), x, ball_of(config), config, draws_of(x))
    assert torch.equal(found, known)


def apgd_by_hand(network: nn.Module, x: Tensor, y: Tensor, steps: int, ball: Ball, at: Tensor) -> Tensor:
    """Algorithm 1 of arXiv 2003.01690 for one image, with its lists."""
    places = [0, 0.22]
    while places[-1] <= 1:
        places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
    marks = [math.ceil(place * steps - 1e-9) for place in places]
    length, points, values, lengths, tops = 2 * ball.radius, [at], [], {0: 2 * ball.radius}, {}
    gradient, value = slope(network, at, y)
    values.append(value)
    best = (value, at, gradient)
    tops[0] = value
    z = ball.project(at + length * unit(ball, gradient), x)
    points.append(z)
    for k in range(1, steps + 1):
        gradient, value = slope(network, points[k], y)
        values.append(value)
        if value > best[0]:
            best = (value, points[k], gradient)
        if k == steps:
            return best[1]
        here, before = points[k], points[k - 1]
        if k in marks[1:]:
            last = marks[marks.index(k) - 1]
            rises = sum(bool(values[i + 1] > values[i]) for i in range(last, k))
            if rises < 0.75 * (k - last) or (lengths[last] == length and tops[last] == best[0]):
                length, here, gradient = length / 2, best[1], best[2]
                points[k] = here
            lengths[k], tops[k] = length, best[0]
        z = ball.project(here + length * unit(ball, gradient), x)
        points.append(ball.project(here + 0.75 * (z - here) + 0.25 * (here - before), x))
    raise AssertionError


def unit(ball: Ball, gradient: Tensor) -> Tensor:
    return gradient.sign() if isinstance(ball, Linf) else gradient / gradient.norm()


@pytest.mark.parametrize("ball", [Linf(0.06), L2(0.4)], ids=str)
def test_apgd_is_the_published_algorithm_image_by_image(ball: Ball) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    x, y = torch.rand(8, 1, 8, 8, dtype=torch.float64), torch.arange(8) % 4
    draws = draws_of(x)
    config = AttackConfig(Kind.apgd, steps=40)
    found = attack(Classifier(network, y, cross_entropy_gain), x, ball, config, draws)
    starts = ball.start(x, draws(0))
    for i in range(8):
        known = apgd_by_hand(network, x[i : i + 1], y[i : i + 1], 40, ball, starts[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], known, rtol=0, atol=1e-10)


def test_checkpoints_of_a_hundred_steps() -> None:
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}  # AutoAttack's own
    assert checkpoints(50)[11] == 11 and checkpoints(1) == {}


def test_of_several_restarts_the_best_of_each_item_counts() -> None:
    x, y = pictures(20, seed=3)
    gain = Classifier(learnt(), y, margin_gain)
    config = AttackConfig(eps=0.08, steps=3, restarts=4)
    draws, one = draws_of(x), replace(config, restarts=1)
    each = [attack(gain, x, ball_of(config), one, lambda _, r=r: draws(r)) for r in range(4)]
    gains = torch.stack([gain(points) for points in each]).detach()
    found = attack(gain, x, ball_of(config), config, draws)
    assert torch.equal(found, torch.stack(each)[gains.argmax(0), torch.arange(20)])
    assert len(gains.argmax(0).unique()) > 1, "no restart was better than another, so nothing was tested"


def test_early_exit_finds_whom_a_whole_path_fools_and_computes_less() -> None:
    x, y = pictures(60, seed=4)
    y[::6] = (y[::6] + 1) % CLASSES  # some are misclassified from the start
    config = AttackConfig(eps=0.07, steps=8)
    path = by_hand(learnt(), x, y, config, ball_of(config).start(x, draws_of(x)(0)))[:-1]
    fooled = torch.stack([learnt()(at).argmax(1) != y for at in [x, *path]])
    assert 0.2 < fooled.any(0).double().mean() < 0.9
    counted = [0]

    def network(points: Tensor) -> Tensor:
        counted[0] += len(points)
        return learnt()(points)

    found = attack(Classifier(network, y, cross_entropy_gain), x, ball_of(config), config, draws_of(x), early_exit=True)
    for i in range(60):
        first = fooled[:, i].int().argmax()
        known = torch.stack([x, *path])[first, i] if fooled[:, i].any() else found[i]
        torch.testing.assert_close(found[i], known)
    assert counted[0] == (~fooled.cummax(0).values).sum() + fooled.any(0).sum()
    assert torch.equal(found[::6][fooled[0, ::6]], x[::6][fooled[0, ::6]])


def test_early_exit_needs_to_know_whom_it_has_fooled() -> None:
    x, _ = pictures(2, seed=5)
    with pytest.raises(ValueError, match="takes a Classifier"):
        attack(lambda points: points.sum((1, 2, 3)), x, Linf(0.1), AttackConfig(), draws_of(x), early_exit=True)


def test_no_weight_gets_a_gradient_and_no_generator_moves() -> None:
    x, y = pictures(6, seed=6)
    before = torch.get_rng_state()
    config = AttackConfig(Kind.apgd, steps=5, restarts=2)
    found = attack(Classifier(learnt(), y, cross_entropy_gain), x, ball_of(config), config, draws_of(x))
    again = attack(Classifier(learnt(), y, cross_entropy_gain), x, ball_of(config), config, draws_of(x))
    assert torch.equal(found, again) and not found.requires_grad
    assert all(weight.grad is None for weight in learnt().parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stack_of_clients_folded_into_items_is_each_client_alone() -> None:
    clients = [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ELU(), nn.Linear(8, CLASSES)).double() for _ in range(3)
    ]
    weights, _ = torch.func.stack_module_state(clients)
    x, y = pictures(12, seed=7)
    x, y = x.double().unflatten(0, (3, 4)), y.unflatten(0, (3, 4))

    def logits(one: dict[str, Tensor], points: Tensor) -> Tensor:
        return torch.func.functional_call(clients[0], one, points)

    def gain(points: Tensor) -> Tensor:
        stacked = torch.func.vmap(logits)({k: w.detach() for k, w in weights.items()}, points.unflatten(0, (3, 4)))
        return cross_entropy_gain(stacked, y).flatten()

    config = AttackConfig(eps=0.1, steps=5)
    draws = draws_of(x.flatten(0, 1))
    together = attack(gain, x.flatten(0, 1), ball_of(config), config, draws).unflatten(0, (3, 4))
    for c, client in enumerate(clients):
        own = Classifier(client, y[c], cross_entropy_gain)
        alone = attack(own, x[c], ball_of(config), config, lambda r, c=c: draws(r).unflatten(0, (3, 4))[c])
        torch.testing.assert_close(together[c], alone, rtol=0, atol=1e-12)


def test_starts() -> None:
    x, _ = pictures(50, seed=8)
    still = AttackConfig(eps=0.1, steps=1, step_size=1e-9)

    def start(which: Start, ball: Ball) -> Tensor:
        return attack(lambda points: 0 * points.sum((1, 2, 3)), x, ball, replace(still, start=which), draws_of(x)) - x

    assert not start(Start.none, Linf(0.1)).any()
    torch.testing.assert_close(start(Start.normal, Linf(0.1)), 0.001 * normals(draws_of(x)(0)), rtol=0, atol=1e-6)
    blocks = start(Start.blocks, Linf(0.1))
    torch.testing.assert_close(blocks.abs(), torch.full_like(x, 0.1))
    assert (F.max_pool2d(blocks, 2).sign() == -F.max_pool2d(-blocks, 2).sign()).all(), (
        "one sign a block of 2 x 2 pixels"
    )
    torch.testing.assert_close(start(Start.blocks, L2(0.4)).flatten(1).norm(dim=1), torch.full((50,), 0.4))


def test_a_patch_is_a_square_at_the_rim_of_its_items_own_numbers() -> None:
    """A pixel at a channel's edge of the box stays there, so dark squares go up and bright ones down."""
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(200, 3, 20, 24).contiguous()
    draw = draws_of(x)(0)
    for ball, pixel in ((Linf(0.1), lambda side, channels: 0.1), (L2(2.0), lambda s, c: 2 / s / c**0.5)):
        moved = STARTS[Start.patch](x, draw, ball) - x
        for each in moved:
            rows, columns = (each.any(0).any(axis) for axis in (1, 0))
            side = int(rows.sum())
            assert 6 <= side <= 14 and abs(side - int(columns.sum())) <= 1, "a third to two thirds of 20"
            inside = each[:, rows][:, :, columns]
            assert (inside.amax((1, 2)) == inside.amin((1, 2))).all() and inside.count_nonzero() == each.count_nonzero()
            area = int(rows.sum()) * int(columns.sum())
            torch.testing.assert_close(inside[1].abs().max().item(), pixel(area**0.5, 3), rtol=1e-4, atol=0)
        ups = moved.amax((2, 3)) > 0
        assert ups[:, 0].all() and not ups[:, 2].any() and 60 < ups[:, 1].sum() < 140
        some = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:17]
        assert torch.equal(STARTS[Start.patch](x[some], draw[some], ball) - x[some], moved[some])


def test_gains_are_those_of_their_equations() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.5, 4.0, 1.0, 2.0]], dtype=torch.float64)
    y, aim = torch.tensor([0, 2]), torch.tensor([2, 1])
    torch.testing.assert_close(cross_entropy_gain(logits, y), F.cross_entropy(logits, y, reduction="none"))
    assert margin_gain(logits, y).tolist() == [-1.0, 3.0]
    torch.testing.assert_close(dlr_gain(logits, y), torch.tensor([-1 / 2, 3 / 3]).double())
    torch.testing.assert_close(targeted_dlr_gain(logits, y, aim), torch.tensor([-1 / 3, 3 / 3.25]).double())
    torch.testing.assert_close(dlr_gain(7 * logits, y), dlr_gain(logits, y))
    p, q = logits.flip(0).softmax(1), logits.softmax(1)
    torch.testing.assert_close(kl_gain(logits, logits.flip(0)), (p * (p / q).log()).sum(1))
    stacked = cross_entropy_gain(logits[None].expand(3, 2, 4), y.expand(3, 2))
    torch.testing.assert_close(stacked, cross_entropy_gain(logits, y).expand(3, 2))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"eps": 0.0}, "attack.eps=0.0: an attack needs a radius above 0"),
        ({"eps": -0.1}, "attack.eps=-0.1"),
        ({"eps": math.nan}, "attack.eps=nan"),
        ({"eps": 8.0}, "8 of 255 is attack.eps=0.0313725"),
        ({"steps": 0}, "attack.steps=0: nothing would be attacked; use 1 or more"),
        ({"restarts": 0}, "attack.restarts=0: use 1"),
        ({"eps": 0.1, "step_size": 0.21}, "attack.step_size=0.21 with attack.eps=0.1: a step longer than 2 eps = 0.2"),
        ({"step_size": 0.0}, "attack.step_size=0.0"),
        ({"kind": Kind.fgsm}, "attack.steps=20 with attack.kind=fgsm, which takes one: use 1"),
        ({"kind": Kind.apgd, "step_size": 0.01}, "attack.kind=apgd, which chooses its own: use null"),
        ({"restarts": 2, "start": Start.none}, "attack.restarts=2 with attack.start=none: all would be the same"),
    ],
)
def test_what_attacks_nothing_is_refused(given: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        AttackConfig(**given)
    assert message in str(error.value)


def test_an_l2_radius_above_1_and_a_step_without_a_length_are_fine() -> None:
    assert AttackConfig(norm=Norm.l2, eps=1.5).length == pytest.approx(2.5 * 1.5 / 20)
    assert AttackConfig(eps=0.1, steps=1).length == 0.1


@pytest.mark.parametrize("loss, gain, classes", [(Loss.dlr, dlr_gain, 2), (Loss.targeted_dlr, targeted_dlr_gain, 3)])
def test_ratios_of_logits_that_are_not_there_are_refused(loss: Loss, gain, classes: int) -> None:
    y = torch.zeros(1, dtype=torch.long)
    with pytest.raises(UserError, match=f"attack.loss={loss} with {classes} classes.*use attack.loss=cw"):
        gain(torch.zeros(1, classes), *[y] * (1 + (loss is Loss.targeted_dlr)))
