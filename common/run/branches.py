"""Branches of a run: what a smaller budget comes to, seen on the way to a larger one.

A branch of `end` outer steps leaves the run where the rate of a run of `end` steps begins to fall, and takes the steps
of that run, to the bit. Then the run is put back to its checkpoint and goes on as if nothing had been, a branch's time
not counted. Of a branch one record is kept, its score on dev:

    {"step": 450, "time": 61.2, "split": "branch", "branch/accuracy": 0.94}

A branch that was cut off is gone through again, from the run's checkpoint.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # tables read this file, and need no torch
    import torch

    from common.run.state import RunState

BRANCH = "branch"
"""Split of the record, in place of `dev`."""


class Branching(Protocol):
    """The optimiser of a run with branches: `common.engine.outer.Outer`."""

    ends: int
    branches: Mapping[int, int]


class Going(Protocol):
    """What of a run a branch leaves from and comes back to: `common.run.run.Run`."""

    state: "RunState"
    device: "torch.device"

    @property
    def step(self) -> int:
        """The last step that was taken."""
        ...

    def save(self, step: int) -> None:
        """Write its checkpoint."""
        ...


def split_of(split: str, branch: int) -> str | None:
    """The split under which a record is kept, `branch` being the last step of the branch that is gone through, or 0;
    None: it is not kept."""
    if not branch:
        return split
    return BRANCH if split == "dev" else None


def branch(run: Going, outer: Branching) -> Iterator[int]:
    """The steps of the branch that leaves after this step of `run`, if one does; then `run` is back there.

    Raises:
        UserError: the checkpoint to come back to cannot be written or read.
    """
    if (end := outer.branches.get(run.step)) is None:
        return
    run.save(run.step)
    whole, outer.ends, run.state.branch = outer.ends, end, end
    while run.step < end:
        run.state.step += 1
        yield run.step
    outer.ends, run.state.branch = whole, 0
    run.state.restore(run.device)
