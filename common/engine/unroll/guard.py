"""Whether the steps that a backward pass rebuilt are those that were taken; costs no forward pass.

A rebuilt step's second derivative computes the step's loss on its way, and its gradient except where a layer spares the
product (`common.engine.twice.linear`). Both are compared with what the forward pass found: the loss in full, the
gradient in at most 64 entries of the first and the last weight, and of the first and the last bias: what changes
anywhere on the way changes that of the first layer. The differences stay on the device until the last step is rebuilt.

The two may differ by rounding, as the rebuilt step runs other kernels. A difference counts from `_CLOSE` on, as a share
of the largest loss (of a task) or gradient over the steps: the smallest of them may be nothing but rounding. What is
smaller goes unnoticed, and so does a difference in other entries of the gradient alone that leaves the loss as it was.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import UserError

ENTRIES = {1: 64, 2: 8, 3: 4, 4: 3, 5: 2}
"""Of a tensor that is compared, along each of its axes, by how many it has."""
_CLOSE = {torch.float64: (1e-6, 1e-4), torch.float32: (1e-3, 1e-2), torch.bfloat16: (5e-2, 2e-1)}
"""Of loss and gradient, by precision; half of them all are taken for bfloat16."""
CAUSES = (
    "usual causes: data, a number or a switch that the loss reads changed between adapt and the backward pass; random "
    "numbers of a generator that the loss does not hold; a parts function that gives other data when it is called "
    "again; a loss that keeps a count of its own"
)


class _Both(NamedTuple):
    """What a step found, and what it finds now; of gradients their size and that of the difference."""

    step: int
    was: Tensor
    now: Tensor


class Guard:
    """Of the steps of one inner loop."""

    def __init__(self, weights: Sequence[Tensor], kind: torch.dtype, projected: bool) -> None:
        """`kind`: the coarsest precision of the steps. `projected`: the weights are compared too."""
        self.rough = kind
        fewest = min(w.dim() for w in weights)  # biases and norms, whose gradient no layer spares
        small, large = ([i for i, w in enumerate(weights) if (w.dim() == fewest) is few] for few in (True, False))
        self._picked = dict.fromkeys([*small[:1], *small[-1:], *large[:1], *large[-1:]])
        self.projected = projected
        self._began: list[Tensor] = []
        self._losses: list[_Both] = []
        self._gradients: list[_Both] = []
        self._weights: list[_Both] = []
        self._recorded: list[dict[int, Tensor]] = []
        self.order: Sequence[int] = range(len(weights))
        """Of the weights in the backward pass."""
        self._value: Tensor | None = None
        self._found: dict[int, Tensor] | None = None

    def began(self, weights: Sequence[Tensor]) -> None:
        """The forward pass: weights before a step, and after the last."""
        if self.projected:
            self._began.append(torch.cat([_few(w) for w in weights]))

    def recalled(self, step: int, weights: Sequence[Tensor]) -> None:
        """The backward pass: the same weights."""
        if self.projected:
            found = torch.cat([_few(w) for w in weights])
            self._weights.append(_Both(step, self._began[step], found))

    def recorded(self, gradients: Sequence[Tensor]) -> None:
        """The forward pass: the gradient of a step's loss, before anything is made of it."""
        self._recorded.append({i: _few(gradients[i]).clone() for i in self._picked})

    def seen(self, value: Tensor, gradients: Sequence[Tensor | None], rough: torch.dtype | None = None) -> None:
        """Loss and gradient of a part that was rebuilt: see `common.engine.derivatives.Seen`."""
        if self._value is None and not self._losses:  # all steps are of one kind
            self.rough = coarser(self.rough, rough or coarsest(value))
        value = value.detach()
        self._value = value if self._value is None else self._value + value
        pairs = zip(self.order, gradients, strict=True)
        few = {i: _few(g) for i, g in pairs if i in self._picked and g is not None}
        self._found = few if self._found is None else {i: few[i] + g for i, g in self._found.items() if i in few}

    def rebuilt(self, step: int, loss: Tensor) -> None:
        """All parts of a step have been; `loss` is what it was."""
        if self._value is not None:
            self._losses.append(_Both(step, loss, self._value))
            pairs = [(self._recorded[step][i], g) for i, g in (self._found or {}).items()]
            if pairs:
                recorded, found = (torch.cat(each) for each in zip(*pairs, strict=True))
                self._gradients.append(_Both(step, recorded.norm(), (found - recorded).norm()))
        self._value, self._found = None, None

    def check(self) -> None:
        """Wait for the device, once.

        Raises:
            UserError: a step that was rebuilt is not the one that was taken.
        """
        if not self._losses:
            return
        of_gradient, floor = _CLOSE[_kind(self.rough)][1], _floor(self.rough)
        steps = [loss.step for loss in self._losses]
        losses = torch.stack([loss.was.flatten().double() for loss in self._losses])
        again = torch.stack([loss.now.flatten().double() for loss in self._losses])
        off = apart(losses, again, self.rough)
        kinds = [off.any(1)]
        if self._gradients:
            sizes = torch.stack([gradient.was for gradient in self._gradients])
            differences = torch.stack([gradient.now for gradient in self._gradients])
            largest = torch.where(sizes.isfinite(), sizes, 0).amax()
            kinds.append(~(differences <= of_gradient * largest + floor) & sizes.isfinite())
        for _, a, b in self._weights:
            kinds.append(((b - a).norm() > _CLOSE[_kind(self.rough)][0] * a.norm() + floor).view(1))
        told = iter(torch.cat(kinds).tolist())
        counts = len(steps), len(self._gradients), len(self._weights)
        wrong, sloped, moved = ([i for i in range(count) if next(told)] for count in counts)
        if wrong:  # the first that was taken is the last that was rebuilt
            at = wrong[-1]
            task = int(off[at].int().argmax())
            raise _different(steps[at], f"its loss was {losses[at, task]:.6g} and is {again[at, task]:.6g} now")
        if sloped:
            step, size, difference = self._gradients[sloped[-1]]
            raise _different(step, f"its gradient differs by {difference / size:.2g} of its size, its loss does not")
        if not moved:
            return
        raise UserError(
            "inner.unroll=recompute: the projection gives other weights when it is played again; it has to be a "
            "function of its argument alone, which draws no random numbers; or use inner.unroll=stored"
        )


def coarser(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The one of larger rounding errors."""
    return max(one, other, key=lambda kind: torch.finfo(kind).eps)


def coarsest(value: Tensor) -> torch.dtype:
    """Of all that a value was computed in: what autocast and the network itself have cast to are in its graph."""
    found, seen, waiting = value.dtype, set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "ToCopyBackward0" and (kind := node._input_metadata[0].dtype).is_floating_point:
            found = coarser(found, kind)
        waiting.extend(following for following, _ in node.next_functions)
    return found


def apart(losses: Tensor, again: Tensor, rough: torch.dtype) -> Tensor:
    """Where two computations of the same losses [..., tasks] in `rough` differ by more than rounding."""
    scale = torch.where(losses.isfinite(), losses.abs(), 0)
    scale = scale.amax(0) if scale.dim() > 1 else scale
    return ((again - losses).abs() > _CLOSE[_kind(rough)][0] * scale + _floor(rough)) | (
        again.isnan() != losses.isnan()
    )


def _kind(rough: torch.dtype) -> torch.dtype:
    rough = rough.to_real()
    return rough if rough in _CLOSE else torch.bfloat16


def _floor(rough: torch.dtype) -> float:
    return 16 * torch.finfo(rough).eps


def _different(step: int, what: str) -> UserError:
    return UserError(
        f"inner.unroll=recompute: inner step {step} was rebuilt as another one than was taken: {what}; {CAUSES}. Keep "
        "it as it was until the backward pass has ended, or use inner.unroll=stored"
    )


def _few(tensor: Tensor) -> Tensor:
    """At most 64 entries of a tensor, spread over it; [entries], a view where that is cheaper."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.numel() > ENTRIES[1]:
        most = ENTRIES.get(tensor.dim(), 1)
        tensor = tensor[tuple(slice(None, None, -(-size // most)) for size in tensor.shape)]
    return tensor.reshape(-1)
