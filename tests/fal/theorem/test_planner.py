"""The planner: separability, refusal, the theorem's orders, a pilot and what its plan then does."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from common.errors import UserError
from fal.images.config import DataConfig
from fal.planner import plan, show
from fal.planner_config import PilotConfig, PlannerConfig
from fal.sharing.config import PartitionConfig
from fal.theorem import planning
from fal.theorem.config import NetworkConfig, ProblemConfig

QUICK = PlannerConfig(
    rho=0.05, eps=0.6, network=NetworkConfig(width=128), local_steps=2, pilot=PilotConfig(rounds=60, steps=[3.2, 12.8])
)


def test_plan_on_the_circle(capsys: pytest.CaptureFixture[str]) -> None:
    data, plans = plan(QUICK)
    theory, pilot, measured = plans
    gamma = data.separation.delta * (data.separation.delta - 0.1)
    assert theory.distance == pytest.approx(math.log10(8 / 0.6) / gamma)
    assert theory.rounds == pytest.approx(2 * theory.distance - 2 * math.log10(0.6))
    assert theory.step == 0.6 and theory.eta_local == 0.5
    assert pilot.step == 12.8 and pilot.rounds is not None and pilot.distance is not None
    assert measured.robust is not None and measured.robust <= 0.6
    assert measured.rounds == pytest.approx(pilot.rounds, rel=0.3)
    show(QUICK, data, plans)
    shown = capsys.readouterr().out
    assert "gamma" in shown and "theory says" in shown and "then measured" in shown
    assert "eta_local K m^(1/3) = 5.04 at m = 128 leaves the coupled regime" in shown


def test_a_pilot_that_falls_short_goes_on_in_a_straight_line() -> None:
    short = replace(QUICK, pilot=PilotConfig(rounds=10, steps=[3.2]), most_rounds=0)
    _, (_, pilot) = plan(short)
    assert "straight line" in pilot.note and pilot.rounds is not None and pilot.rounds > 10


def test_balls_that_meet_are_refused() -> None:
    with pytest.raises(UserError, match=r"rho=0.34: points 0 \(client 0\) and 1 \(client 0\)"):
        plan(replace(QUICK, rho=0.34))


def test_any_dimension_is_attacked_by_pgd() -> None:
    config = replace(QUICK, problem=ProblemConfig(dim=6, delta=0.6), pilot=PilotConfig(rounds=8, steps=[12.8], seeds=1))
    data, plans = plan(replace(config, most_rounds=0))
    assert data.separation.delta == pytest.approx(0.6) and plans[1].robust is not None and plans[1].robust < 1.1


def shapes(**changes: float) -> PlannerConfig:
    config = PlannerConfig(
        eps=0.5, data=DataConfig(source="shapes", train=60, validation=10, test=10, classes=3),
        partition=PartitionConfig(clients=3), network=NetworkConfig(width=64), most_rounds=0,
        pilot=PilotConfig(points=12, rounds=4, steps=[3.2], seeds=1),
    )  # fmt: skip
    return replace(config, **changes)


def test_images_are_laid_on_x() -> None:
    data, plans = plan(shapes(rho=0.001))
    x = data.points.x
    assert torch.allclose(x.norm(dim=-1), torch.ones(()).double()) and (x[..., -1] == 0.5).all()
    assert data.count == 60 and data.points.count == 12 and data.points.y.abs().max() <= 1
    assert plans[1].robust is not None and data.problem.dim == x.shape[-1]
    with pytest.raises(UserError, match=r"rho=0.9: points \d+ \(client \d\) and \d+ \(client \d\)"):
        plan(shapes(rho=0.9))
    with pytest.raises(UserError, match="eps=0.9: the start has robust loss"):
        plan(shapes(rho=0.001, eps=0.9))
    with pytest.raises(UserError, match="image 1 is 0 everywhere"):
        planning.on_x(torch.tensor([[1.0], [0.0]]))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rho": 0.0}, "rho=0.0"),
        ({"eps": 1.5}, "eps=1.5"),
        ({"problem": ProblemConfig(rho=0.3)}, "problem.rho=0.3: the planner's radius is rho; use rho=0.3"),
    ],
)
def test_impossible_wishes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(QUICK, **changes)
