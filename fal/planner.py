"""Plan a federated run by the theorem: separability of the data, then rates, rounds and width.

python -m fal.planner rho=0.1 eps=0.5                                 eight points on a circle
python -m fal.planner rho=0.05 eps=0.5 problem.points=16 problem.clients=8
python -m fal.planner data=fashion_mnist partition=skew rho=0.02 eps=0.8   images, laid on X

Three columns: the orders that the theorem gives, what a short pilot measures, and what the pilot's plan then does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.schema import to_typed
from fal.planner_config import PlannerConfig

if TYPE_CHECKING:
    from fal.theorem.planning import Given, Plan

ConfigStore.instance().store(name="fal_planner_schema", node=PlannerConfig)


def plan(config: PlannerConfig) -> tuple[Given, list[Plan]]:
    """The data and the columns.

    Raises:
        UserError: delta <= 2 rho, data that are not there, or settings that cannot work.
    """
    from common.run import seeding
    from fal.theorem import planning

    with seeding.applied(config.runtime, config.seed):
        data = planning.given(config)
        plans = [planning.theory(config, data), planning.pilot(config, data)]
        measured = planning.check(config, data, plans[-1])
    return data, plans if measured is None else [*plans, measured]


def show(config: PlannerConfig, data: Given, plans: list[Plan]) -> None:
    """Print them, and what to beware of."""
    from rich.console import Console

    from common.tables.grid import grid
    from fal.theorem.planning import warnings

    console = Console(markup=False, highlight=False)
    delta, gamma, scale = data.separation.delta, data.separation.gamma(config.rho), config.network.width ** (1 / 3)
    console.print(
        f"{data.name}: n = {data.count}, {data.problem.clients} clients; delta = {delta:.4g} (points "
        f"{data.separation.pair[0]} and {data.separation.pair[1]}), gamma = delta (delta - 2 rho) = {gamma:.4g}",
        soft_wrap=True,
    )

    def order(value: float | None, plan: Plan) -> str:
        if value is None:
            return "-"
        return f"about 10^{value:.3g}" if plan.orders else f"{value:.4g}"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    rows = [
        ["R", *(order(each.distance, each) for each in plans)],
        ["e", *(f"{each.step:.4g}" for each in plans)],
        ["eta_local", *(f"{each.eta_local:.4g}" for each in plans)],
        ["eta_global", *(f"{each.step / (each.eta_local * config.local_steps * scale):.4g}" for each in plans)],
        ["T", *(order(each.rounds, each) for each in plans)],
        ["m", *(order(each.width, each) for each in plans)],
        ["robust loss", *(number(each.robust) or f"{config.eps:g}" for each in plans)],
        ["largest |f - g|", *(number(each.gap) for each in plans)],
        ["local drift", *(number(each.drift) for each in plans)],
    ]
    title = (
        f"rho = {config.rho:g}, eps = {config.eps:g}, K = {config.local_steps}; measured at m = {config.network.width}"
    )
    console.print(grid(title, ["", *(each.name for each in plans)], rows))
    for line in [f"{each.name}: {each.note}" for each in plans if each.note] + warnings(config, plans):
        console.print(line, soft_wrap=True)


@entry("pkg://conf.fal.planner")
def main(cfg: DictConfig) -> None:
    """Print the plan."""
    config = to_typed(cfg, PlannerConfig)
    show(config, *plan(config))


if __name__ == "__main__":
    main()
