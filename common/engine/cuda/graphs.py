"""The test-time inner loop as one CUDA graph: recorded once for a shape, then replayed without a launch from Python."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from common.engine.derivatives import InnerLoss, Parts, parts_at, random_state, replayed
from common.engine.rates import Rates
from common.engine.rules import RuleState, UpdateRule
from common.engine.unroll.descent import FRESH, walk
from common.engine.unroll.projection import Projection
from common.engine.weights import Weights
from common.errors import UserError

Found = tuple[Weights, RuleState, list[Tensor]]
"""What `common.engine.unroll.descent.descend` returns."""
T = TypeVar("T")
WARM_UP = 3
"""Runs before the recording: libraries set themselves up and pick their kernels, which a recording may not hold."""


class GraphedDescent:
    """`common.engine.unroll.descent.descend` without a tape, for a loss that is asked again and again; on CUDA only.

    The steps are recorded at the first call and again whenever a replay could not stand for them: another loss, other
    names, shapes, dtypes or non-tensors in weights, state or data, other steps, count of steps before, rule, rate
    values, projection or autocast. One recording is kept, with the memory of its steps, as long as this object lives.
    The loss gets its data through `parts` (any nesting of lists, tuples and dicts, or a function of the step, which is
    asked for all steps before the first): their tensors are copied in at every call. What else loss and projection read
    is read where it lay during the recording: changes in place are seen, such as an outer step's; a tensor put in its
    place, or a switch such as `network.eval()`, is not.
    """

    def __init__(self) -> None:
        self._recording: _Recording | None = None

    def __call__(
        self,
        loss: InnerLoss,
        start: Weights,
        parts: Parts,
        *,
        steps: int,
        rule: UpdateRule,
        rates: Rates,
        state: RuleState = FRESH,
        project: Projection | None = None,
    ) -> Found:
        """As `common.engine.unroll.descent.descend`.

        Raises:
            ValueError: weights or data are not on one CUDA device.
            UserError: the loss cannot be recorded.
        """
        each_step = [list(parts_at(parts, step)) for step in range(steps if callable(parts) else 1)]
        weights, (data, structure) = list(start.values()), tree_flatten((each_step, state.buffers))
        _refuse_elsewhere([*weights, *(x for x in data if isinstance(x, Tensor))])
        rate = rates.table()
        numbers = [[rate(name, step) for name in start] for step in range(steps)]
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        kinds = [_kind(x) for x in (*weights, *data)]
        key = [list(start), kinds, structure, steps, state.count, rule, numbers, project, autocast]
        recording = self._recording
        if recording is None or recording.loss != loss or recording.key != key:
            self._recording = recording = None  # its memory first

            def run(fast: Weights, own: list[Any]) -> Found:
                given, buffers = tree_unflatten(own, structure)
                return walk(
                    loss, fast, lambda step: given[min(step, len(given) - 1)], steps=steps, rule=rule, rate=rate,
                    state=RuleState(state.count, buffers), project=project,
                )  # fmt: skip

            self._recording = recording = _Recording(loss, key, start, data, run)
        return recording.replay(weights, data)


class _Recording:
    """A graph, the tensors that it reads and those that it writes."""

    def __init__(
        self,
        loss: InnerLoss,
        key: list[Any],
        start: Weights,
        data: list[Any],
        run: Callable[[Weights, list[Any]], Found],
    ) -> None:
        self.loss, self.key = loss, key
        self.start = {name: w.detach().clone() for name, w in start.items()}
        self.data = [x.detach().clone() if isinstance(x, Tensor) else x for x in data]
        self.found, self.again = record(lambda: run(self.start, self.data), next(iter(self.start.values())).device)

    def replay(self, weights: Sequence[Tensor], data: Sequence[Any]) -> Found:
        """Run the steps on these; the next replay writes over what the graph found, so it is copied."""
        own = [*self.start.values(), *(x for x in self.data if isinstance(x, Tensor))]
        given = [*weights, *(x for x in data if isinstance(x, Tensor))]
        with torch.no_grad():
            for mine, theirs in zip(own, given, strict=True):
                mine.copy_(theirs)
            self.again()
            fast, state, losses = self.found
            buffers = {name: [b.clone() for b in own] for name, own in state.buffers.items()}
            copies = {name: w.clone() for name, w in fast.items()}, RuleState(state.count, buffers)
            return *copies, [value.clone() for value in losses]


def record(run: Callable[[], T], device: torch.device) -> tuple[T, Callable[[], None]]:
    """What `run` returns, in tensors that the second result fills anew from what `run` reads.

    Raises:
        UserError: `run` does what a graph cannot hold.
    """
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside), replayed(random_state(device), device):  # as if there had been no warm-up
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = run()
    except RuntimeError as error:
        raise UserError(
            "runtime.capture=true: the inner loss cannot be recorded as a CUDA graph: it must not wait for the device "
            "(.item(), .tolist(), boolean masks, copies to the CPU) nor choose its operations or shapes by values; use "
            f"runtime.capture=false (common.engine.unroll.descent.descend). {error}"
        ) from error
    return found, graph.replay


def _kind(x: Any) -> Any:
    """What must not change from replay to replay: all of a non-tensor, the layout of a tensor."""
    return (x.dtype, x.shape, x.stride(), x.device) if isinstance(x, Tensor) else x


def _refuse_elsewhere(tensors: Sequence[Tensor]) -> None:
    """A tensor on the CPU would be read once, during the recording, and never again."""
    places = {str(x.device) for x in tensors}
    if len(places) != 1 or tensors[0].device.type != "cuda":
        raise ValueError(
            f"a CUDA graph needs weights and data on one CUDA device, these are on {', '.join(sorted(places))}; "
            "move them, or use common.engine.unroll.descent.descend"
        )
