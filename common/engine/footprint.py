"""Memory of an outer gradient, predicted from one inner step that is run without data.

The step runs on tensors that have shapes but no memory, while every allocation and release is counted. The rest is
arithmetic: what each unroll keeps of a step is known.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from common.engine.derivatives import InnerLoss, plain_gradient, plain_product
from common.engine.given import check_start
from common.engine.hollow import DEVICE, Hollow, without_data
from common.engine.rules import UpdateRule
from common.engine.second import differentiable_twice
from common.engine.settings import Snapshots, Unroll
from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights, leaves

Parts = list[tuple[str, int]]
"""Where in a network, and the most bytes alive there: part after part of a computation."""
Courses = dict[Any, Parts]
"""Computations by name and the shapes of their data."""


class _Allocations(Hollow):  # type: ignore[no-untyped-call]
    """Bytes of all tensors made inside and still alive, and the most there were, part by part."""

    def __init__(self, mode: FakeTensorMode, places: Mapping[int, str]) -> None:
        """`places`: storage of a weight -> where in the network it is. A part lasts from when an operation reads a
        weight until one reads a weight of another place.
        """
        super().__init__(mode)
        self.alive = 0
        self.parts: Parts = [("", 0)]
        self._seen: set[int] = set()
        self._places = places

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if self._places:
            for x in args:
                if isinstance(x, FakeTensor):
                    place = self._places.get(x.untyped_storage()._cdata, self.parts[-1][0])
                    if place != self.parts[-1][0]:
                        self.parts.append((place, self.alive))
        found = super().__torch_dispatch__(function, types, args, kwargs)
        outputs = found if isinstance(found, tuple) else () if found is None else (found,)
        for output, declared in zip(outputs, function._schema.returns, strict=True):
            if declared.alias_info is None:  # no view, which may be one of a weight that was there before
                for tensor in pytree.tree_leaves(output):
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
        place, most = self.parts[-1]
        if self.alive > most:
            self.parts[-1] = place, self.alive
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
    others: int
    """Whatever else of the network learns."""
    first: int
    """A step's gradient without graph, one micro-batch after the other, at its peak."""
    graph: int
    """What a step with its graph holds until the backward pass, all micro-batches together, without the gradient."""
    making: int
    """Such a step while it is made, at its peak."""
    back: int
    """The second derivative of such a step, at its peak, above what the step holds."""
    product: int
    """A rebuilt step's second derivative for one micro-batch, at its peak; 0: not counted."""
    outer: int
    """The outer loss with its graph and the gradient that it sends to the adapted weights, at its peak."""

    def peak(self, unroll: Unroll, steps: int, keep: int, snapshots: Snapshots = Snapshots.device) -> int:
        """Most bytes that one outer gradient holds above network and outer optimiser, gradients included.

        The caller holds the adapted weights until the backward pass has ended, and not the rule's state.

        Raises:
            ValueError: steps are rebuilt, and what that takes was not counted.
        """
        fast, moments, others = self.fast, self.fast * self.buffers, self.others
        if unroll is Unroll.none:
            return fast + max(moments + self.first, self.outer)
        graph, making, back = self.graph, self.making, self.back
        if unroll is Unroll.first_order:
            graph, making, back = 0, self.first, 0
        if unroll is Unroll.tgu and keep == 0:
            return self.peak(Unroll.first_order, steps, keep, snapshots)
        stored = {Unroll.truncate: keep, Unroll.recompute: keep, Unroll.tgu: keep}.get(unroll, steps)
        a_step = graph + 2 * fast + moments  # the gradient, and the new weights and moments
        tape = (steps - stored) * fast if unroll is Unroll.recompute and snapshots is Snapshots.device else 0
        before = tape + fast if stored < steps else 0  # the weights that the stored steps start from
        if unroll is Unroll.tgu:
            before += (steps - stored) * (a_step - graph)
        peaks = []
        if stored < steps:
            peaks.append(before + moments + self.first)
        if stored:
            entering = moments if stored < steps else 0  # of no use once the first stored step has moments of its own
            peaks.append(before + max(entering, (stored - 1) * a_step) + making)
            # the update's reverse: cotangents that come in and copies of them to work on, those of gradient and moments
            pulled = others + 3 * fast + moments
            # then gradient and moments are gone, and what was pulled back has taken their place
            peaks.append(before + stored * a_step + max(self.outer, pulled, others + fast + back))
        else:
            peaks.append(before + self.outer)
        if unroll is Unroll.recompute and stored < steps:
            if not self.product:
                raise ValueError("counted without the rebuilding of a step")
            # outputs, cotangents that come in and copies of them to work on (moments have some that come in only if
            # steps follow), and the weights of the step, with its gradient if that is not on the tape
            held = (4 if snapshots is Snapshots.device else 5) * fast + (2 if stored else 1) * moments + 2 * others
            peaks.append(tape + held + self.product)
        return max(peaks)


@dataclass(frozen=True)
class Trace:
    """What a footprint is made of: the same numbers with the whole course of each peak."""

    fast: int
    buffers: int
    others: int
    first: Parts
    graph: int
    making: Parts
    back: Parts
    product: Parts
    outer: Parts
    summed: int
    """Bytes besides the first peak: the sum of the earlier micro-batches."""

    def footprint(self) -> Footprint:
        """The peaks."""
        first, making, back, product, outer = (
            max(most for _, most in parts) for parts in (self.first, self.making, self.back, self.product, self.outer)
        )
        return Footprint(
            self.fast, self.buffers, self.others, first + self.summed, self.graph - self.fast, max(making, self.graph),
            back - self.graph, product, outer,
        )  # fmt: skip


def carried_on(small: Trace, larger: Sequence[tuple[Trace, float]]) -> Trace:
    """The trace `small` plus, for each of `larger`, so many times what lies between it and `small`, part by part.

    Raises:
        ValueError: one of them takes another course through the network.
    """
    found = {}
    for field in fields(Trace):
        own, others = getattr(small, field.name), [(getattr(each, field.name), times) for each, times in larger]
        if isinstance(own, int):
            found[field.name] = round(own + sum(times * (other - own) for other, times in others))
            continue
        courses = [[place for place, _ in parts] for parts in (own, *(other for other, _ in others))]
        if any(course != courses[0] for course in courses):
            raise ValueError(f"{field.name}: {[len(course) for course in courses]} parts")
        found[field.name] = [
            (place, round(most + sum(times * (other[at][1] - most) for other, times in others)))
            for at, (place, most) in enumerate(own)
        ]
    return Trace(**found)


def footprint(
    inner: InnerLoss,
    outer: Callable[[Weights], Tensor],
    start: Weights,
    parts: Sequence[Any],
    rule: UpdateRule,
    also: Sequence[Tensor] = (),
) -> Footprint:
    """Run one step of each kind without data; `start`, `parts` and the network stay as they are.

    `also` is what else of the network learns, as in `common.engine.inner.adapt`.

    Raises:
        UserError: weights or loss are none that `adapt` takes, or the loss needs data.
    """
    check_start(start)
    return trace(inner, outer, start, parts, rule, also).footprint()


def trace(
    inner: InnerLoss,
    outer: Callable[[Weights], Tensor],
    start: Weights,
    parts: Sequence[Any],
    rule: UpdateRule,
    also: Sequence[Tensor] = (),
    place: Callable[[str], str] | None = None,
    frozen: Weights | None = None,
    known: Courses | None = None,
    rebuilds: bool = True,
) -> Trace:
    """The same, with the course of every peak; `place` tells for the name of a weight where in the network it is.

    `frozen` are the network's weights besides `start`. What `known` has is not run again, and it gets what is run.
    `rebuilds`: whether steps may be rebuilt; what that takes is left out otherwise.
    """
    mode = detect_fake_mode(list(start.values())) or FakeTensorMode(allow_non_fake_inputs=True)

    def hollow(tree: Any) -> Any:
        return pytree.tree_map(lambda x: mode.from_tensor(x) if isinstance(x, Tensor) else x, tree)

    weights: Weights = hollow({name: w.detach() for name, w in start.items()})
    beside = {name: w if isinstance(w, FakeTensor) else mode.from_tensor(w) for name, w in (frozen or {}).items()}
    everywhere = {**beside, **weights}
    places = {w.untyped_storage()._cdata: place(name) for name, w in everywhere.items()} if place else {}
    data = [hollow(part) for part in parts]
    largest = max(data, key=lambda part: sum(x.numel() for x in pytree.tree_leaves(part) if isinstance(x, Tensor)))
    shapes = tuple(tuple(x.shape) for x in pytree.tree_leaves(largest) if isinstance(x, Tensor))
    known = {} if known is None else known

    def course(key: Any, run: Callable[[], Any]) -> Parts:
        if key not in known:
            known[key] = course_of(run, mode, places)
        return known[key]

    with without_data(mode):
        first = course(("first", shapes), lambda: plain_gradient(inner, weights, largest))
        vector = [torch.empty_like(w) for w in weights.values()]
        product = [("", 0)]
        if rebuilds:
            product = course(("product", shapes), lambda: plain_product(inner, weights, largest, vector, also))
        at = leaves(weights)
        inputs = [*at.values(), *also]
        with _Allocations(mode, places) as allocations:
            gradients = _with_graph(inner, at, data)
            graph, making = allocations.alive, allocations.parts
            allocations.parts = [("", graph)]
            found = _derivative(gradients, inputs, vector)
            back = allocations.parts
            del gradients, found
        above = course("outer", lambda: torch.autograd.grad(outer(at).sum(), inputs, allow_unused=True))
    size, others = _bytes(start.values()), _bytes(also)
    summed = size if len(data) > 1 else 0
    return Trace(size, rule.buffers, others, first, graph, making, back, product, above, summed)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _with_graph(inner: InnerLoss, at: Weights, parts: Sequence[Any]) -> Any:
    """As a stored step of `common.engine.inner.adapt`."""
    with torch.enable_grad(), needing(Need.second), differentiable_twice():
        value = inner(at, parts[0])
        for part in parts[1:]:
            value = value + inner(at, part)
        return torch.autograd.grad(value.sum(), list(at.values()), create_graph=True, allow_unused=True)


def _derivative(gradients: Sequence[Tensor | None], inputs: Sequence[Tensor], vector: Sequence[Tensor]) -> Any:
    """Of the gradients of a stored step."""
    reached = [(g, v) for g, v in zip(gradients, vector, strict=True) if g is not None and g.requires_grad]
    outputs, vectors = zip(*reached, strict=True) if reached else ((), ())
    return torch.autograd.grad(outputs, inputs, vectors, allow_unused=True) if outputs else ()


def course_of(run: Callable[[], Any], mode: FakeTensorMode, places: Mapping[int, str]) -> Parts:
    """The most bytes alive in each part of `run`."""
    allocations = _Allocations(mode, places)
    with allocations:
        run()
    return allocations.parts
