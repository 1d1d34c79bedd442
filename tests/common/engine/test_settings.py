"""Settings of the two loops: what cannot work is refused, and the message says the way out."""

import math
import re
import subprocess
import sys
from typing import Any

import pytest

from common.engine.settings import InnerConfig, OuterConfig, RateSpace, Snapshots, Unroll
from common.errors import UserError

FINITE = "use a finite value of 0 or more"
SHARE = "it is the share of the past that is kept; use a value in [0, 1)"
GUARD = "it keeps a division from being 0/0; use a small positive value"
POSITIVE = "the rate must be positive; use a value above 0, or inner.space=raw"
UNREACHED = (
    "inner.unroll=truncate with inner.keep=0 and inner.learned=true: no gradient reaches the rates; "
    "use inner.keep=1 or more, inner.learned=false, or inner.unroll=first_order"
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"steps": 0}, "inner.steps=0: at least one inner step is needed; use 1 or more"),
        ({"steps": -2}, "inner.steps=-2: at least one inner step is needed; use 1 or more"),
        ({"lr": -0.1}, f"inner.lr=-0.1: {FINITE}"),
        ({"lr": math.inf}, f"inner.lr=inf: {FINITE}"),
        ({"lr": math.nan}, f"inner.lr=nan: {FINITE}"),
        ({"weight_decay": -1.0}, f"inner.weight_decay=-1.0: {FINITE}"),
        ({"momentum": 1.0}, f"inner.momentum=1.0: {SHARE}"),
        ({"beta1": -0.1}, f"inner.beta1=-0.1: {SHARE}"),
        ({"beta2": 1.0}, f"inner.beta2=1.0: {SHARE}"),
        ({"eps": 0.0}, f"inner.eps=0.0: {GUARD}"),
        (
            {"unroll": Unroll.none},
            "inner.unroll=none: no outer gradient, so nothing trains; "
            "use auto, stored, recompute, truncate, tgu or first_order",
        ),
        (
            {"unroll": Unroll.truncate, "steps": 4, "keep": 5},
            "inner.keep=5 with inner.steps=4: use 0 to 4",
        ),
        ({"unroll": Unroll.truncate, "keep": -1}, "inner.keep=-1 with inner.steps=4: use 0 to 4"),
        ({"keep": 2}, "inner.keep=2 has no meaning with inner.unroll=stored; use unroll=truncate, tgu or recompute"),
        (
            {"keep": 1, "unroll": Unroll.first_order},
            "inner.keep=1 has no meaning with inner.unroll=first_order; use unroll=truncate, tgu or recompute",
        ),
        (
            {"keep": 1, "unroll": Unroll.auto},
            "inner.keep=1 has no meaning with inner.unroll=auto; use unroll=truncate, tgu or recompute",
        ),
        ({"unroll": Unroll.recompute, "steps": 3, "keep": 4}, "inner.keep=4 with inner.steps=3: use 0 to 3"),
        ({"unroll": Unroll.recompute, "keep": -1}, "inner.keep=-1 with inner.steps=4: use 0 to 4"),
        ({"unroll": Unroll.truncate}, UNREACHED),
        (
            {"snapshots": Snapshots.host},
            "inner.snapshots=host has no meaning with inner.unroll=stored; use unroll=recompute or auto",
        ),
        ({"memory_gb": -1.0}, f"inner.memory_gb=-1.0: {FINITE}"),
        ({"memory_gb": math.nan}, f"inner.memory_gb=nan: {FINITE}"),
        ({"micro_batch": -1}, f"inner.micro_batch=-1: {FINITE}"),
        (
            {"lr": 0.0, "space": RateSpace.exp},
            f"inner.lr=0.0 with inner.space=exp: {POSITIVE}",
        ),
        (
            {"lr": 0.0, "space": RateSpace.softplus},
            f"inner.lr=0.0 with inner.space=softplus: {POSITIVE}",
        ),
        ({"weights": []}, "inner.weights=[]: no weight is fast; use ['*'] for all"),
    ],
)
def test_an_inner_loop_that_cannot_work_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        InnerConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"steps": 1},
        {"lr": 0.0},
        {"unroll": Unroll.first_order},
        {"unroll": Unroll.truncate, "keep": 4},
        {"unroll": Unroll.recompute},
        {"unroll": Unroll.recompute, "keep": 4, "snapshots": Snapshots.host},
        {"unroll": Unroll.auto, "snapshots": Snapshots.host, "memory_gb": 0.5},
        {"micro_batch": 1},
        {"unroll": Unroll.truncate, "keep": 1},
        {"unroll": Unroll.truncate, "keep": 0, "learned": False},
        {"beta1": 0.0, "beta2": 0.0, "momentum": 0.0, "weight_decay": 0.0},
    ],
)
def test_an_inner_loop_at_the_edge_of_what_works_is_accepted(values: dict[str, Any]) -> None:
    InnerConfig(**values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"batch_problems": 0}, "outer.batch_problems=0, outer.accumulation=2: both must be >= 1"),
        ({"accumulation": 0}, "outer.batch_problems=2, outer.accumulation=0: both must be >= 1"),
        ({"steps": -1}, "outer.steps=-1, outer.epochs=6: nothing to do; set one of them >= 1"),
        ({"epochs": 0}, "outer.steps=0, outer.epochs=0: nothing to do; set one of them >= 1"),
        ({"warmup": 1.0}, "outer.warmup=1.0: it is a share of all steps; use a value in [0, 1)"),
        ({"warmup": -0.1}, "outer.warmup=-0.1: it is a share of all steps; use a value in [0, 1)"),
        ({"lr": -1e-3}, f"outer.lr=-0.001: {FINITE}"),
        ({"rates_lr": math.nan}, f"outer.rates_lr=nan: {FINITE}"),
        ({"weight_decay": -0.05}, f"outer.weight_decay=-0.05: {FINITE}"),
        ({"clip": -0.1}, f"outer.clip=-0.1: {FINITE}"),
        ({"beta1": 1.0}, f"outer.beta1=1.0: {SHARE}"),
        ({"beta2": 1.5}, f"outer.beta2=1.5: {SHARE}"),
        ({"eps": -1e-8}, f"outer.eps=-1e-08: {GUARD}"),
    ],
)
def test_an_outer_loop_that_cannot_train_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        OuterConfig(**values)


@pytest.mark.parametrize(
    ("values", "problems", "steps"),
    [
        ({}, 100, 150),  # 6 passes of 100 problems, 4 a step
        ({"epochs": 1}, 9, 2),  # the rest is left out
        ({"epochs": 1}, 1, 1),  # at least one step
        ({"steps": 7}, 100, 7),
        ({"steps": 7, "epochs": 0}, 100, 7),
    ],
)
def test_the_number_of_outer_steps_follows_from_steps_or_epochs(values: dict, problems: int, steps: int) -> None:
    assert OuterConfig(**values).total_steps(problems) == steps


def test_the_settings_are_read_without_torch() -> None:
    code = "import sys, common.engine.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
