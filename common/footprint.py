"""Memory of an outer gradient, predicted from one inner step that is run without data.

The step runs on tensors that have shapes but no memory, while every allocation and release is counted. The rest is
arithmetic: what each unroll keeps of a step is known.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from common.bilevel import Snapshots, Unroll
from common.derivatives import InnerLoss, plain_gradient, plain_product
from common.rules import UpdateRule
from common.twice.policy import Need, needing
from common.weights import Weights, leaves


class _Allocations(TorchDispatchMode):
    """Bytes of all tensors made inside and still alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


@dataclass(frozen=True)
class Footprint:
    """Bytes of one inner step and of the outer loss, of one problem or one stack."""

    fast: int
    """The fast weights."""
    buffers: int
    """How many tensors of that size the rule remembers."""
    first: int
    """A gradient of one micro-batch without graph, at its peak."""
    graph: int
    """What a step with its graph holds until the backward pass, all micro-batches together."""
    product: int
    """A rebuilt step's second derivative for one micro-batch, at its peak."""
    outer: int
    """The outer loss with its graph and the gradient that it sends to the adapted weights, at its peak."""

    def peak(self, unroll: Unroll, steps: int, keep: int, snapshots: Snapshots = Snapshots.device) -> int:
        """Most bytes that one outer gradient holds above network and outer optimiser, gradients included."""
        state = self.fast * (1 + self.buffers)
        if unroll in (Unroll.none, Unroll.first_order):
            kept = 0 if unroll is Unroll.none else steps * (state + self.fast)
            return kept + state + max(self.first, self.outer)
        stored = {Unroll.truncate: keep, Unroll.recompute: keep}.get(unroll, steps)
        a_step = self.graph + state + self.fast  # new weights and moments, and the gradient that they came from
        tape = 0
        if unroll is Unroll.recompute and snapshots is Snapshots.device:
            tape = (steps - stored) * self.fast
        before = tape + state if stored < steps else 0
        going_back = max(self.outer, self.product - self.graph + 2 * self.fast) if stored else self.outer
        peaks = [before + state + self.first, before + stored * a_step + going_back]
        if unroll is Unroll.recompute and stored < steps:
            # outputs, their cotangents and the copies that the reverse works on, and the weights of the step
            peaks.append(tape + 2 * state + 2 * self.fast + self.product)
        return max(peaks)


def footprint(
    inner: InnerLoss,
    outer: Callable[[Weights], Tensor],
    start: Weights,
    parts: Sequence[Any],
    rule: UpdateRule,
) -> Footprint:
    """Run one step of each kind without data; `start`, `parts` and the network stay as they are."""
    mode = detect_fake_mode(list(start.values())) or FakeTensorMode(allow_non_fake_inputs=True)

    def hollow(tree: Any) -> Any:
        return pytree.tree_map(lambda x: mode.from_tensor(x) if isinstance(x, Tensor) else x, tree)

    weights: Weights = hollow({name: w.detach() for name, w in start.items()})
    data = [hollow(part) for part in parts]
    largest = max(data, key=lambda part: sum(x.numel() for x in pytree.tree_leaves(part) if isinstance(x, Tensor)))
    with mode:
        _, first = _counted(lambda: plain_gradient(inner, weights, largest))
        vector = [torch.empty_like(w) for w in weights.values()]
        _, product = _counted(lambda: plain_product(inner, weights, largest, vector, []))
        at = leaves(weights)
        graph, _ = _counted(lambda: [_with_graph(inner, at, part) for part in data])
        _, above = _counted(lambda: torch.autograd.grad(outer(at).sum(), list(at.values()), allow_unused=True))
    size = sum(w.numel() * w.element_size() for w in start.values())
    return Footprint(size, rule.buffers, first, graph - size, product, above)


def _with_graph(inner: InnerLoss, at: Weights, part: Any) -> Any:
    with torch.enable_grad(), needing(Need.second):
        value = inner(at, part).sum()
        return torch.autograd.grad(value, list(at.values()), create_graph=True, allow_unused=True)


def _counted(run: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that the result of `run` keeps alive, and the most that were alive meanwhile."""
    with _Allocations() as allocations:
        result = run()
        alive = allocations.alive
        del result
    return alive, allocations.most
