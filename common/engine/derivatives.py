"""First and second derivatives of an inner loss, one micro-batch after the other, with no graph left behind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from common.engine.second import differentiable_twice
from common.engine.twice.policy import Need, needing, sparing
from common.engine.value import gradients_of, in_words, refuse_unfit, value_of
from common.engine.weights import Weights, leaves
from common.errors import UserError

InnerLoss = Callable[[Weights, Any], Tensor]
"""(fast weights, micro-batch) -> its share of the loss; shape [] for one task, [tasks] for a stack.

Task t of a stack depends on slice t of the weights alone. The loss of a step is the sum over its micro-batches.
"""
Parts = Sequence[Any] | Callable[[int], Sequence[Any]]
"""Micro-batches of every step, or a function of the step's index, from 0, that gives those of one step.

The function is called again with the same index when a step is rebuilt, and must give the same then.
"""
Product = tuple[list[Tensor], list[Tensor]]
"""Hessian times a vector, and what of it falls to the other tensors that learn."""


class Seen(Protocol):
    """Is shown what the product of a micro-batch finds on its way."""

    def __call__(self, value: Tensor, gradients: Sequence[Tensor | None], rough: torch.dtype | None = None) -> None:
        """Loss, and its gradient in the order of the weights, None where it was not taken; with their graphs if any.

        `rough` is the coarsest precision that they were computed in, None where the graph tells.
        """
        ...


class Differentiated(Protocol):
    """An inner loss that brings its own gradient, for steps without a graph."""

    def gradient(self, weights: Weights, part: Any) -> tuple[list[Tensor], Tensor]:
        """Gradient of the summed loss in the order of `weights`, and the loss itself; neither with a graph."""
        ...


class Derivatives(Differentiated, Protocol):
    """An inner loss that brings its own derivatives, such as compiled ones (`common.engine.compiled`)."""

    def product(
        self,
        weights: Weights,
        part: Any,
        vector: Sequence[Tensor],
        also: Sequence[Tensor],
        seen: Seen | None = None,
    ) -> Product:
        """d<gradient, vector> by `weights` and by `also`; `seen` is shown what was found on the way."""
        ...


def brings_derivatives(loss: InnerLoss | Derivatives) -> TypeGuard[Derivatives]:
    """Whether `loss` is a `Derivatives`."""
    return hasattr(loss, "gradient") and hasattr(loss, "product")


def _brings_gradient(loss: InnerLoss | Differentiated) -> TypeGuard[Differentiated]:
    """Whether `loss` is a `Differentiated`."""
    return hasattr(loss, "gradient")


def parts_at(parts: Parts, step: int) -> Sequence[Any]:
    """The micro-batches of a step, at least one.

    Raises:
        UserError: they can be gone through once only, are no list of micro-batches, or none.
    """
    found = parts(step) if callable(parts) else parts
    unfit = isinstance(found, Mapping | str | bytes | Tensor)
    if unfit or not hasattr(found, "__getitem__") or not hasattr(found, "__len__"):
        raise UserError(
            f"parts={type(found).__name__}: every step goes through the micro-batches again, so give them as a list, "
            "or give a function of the step's index that returns one; [data] for one"
        )
    if not len(found):
        raise UserError("parts is empty: give at least one micro-batch; [None] for a loss that needs none")
    return found


def gradient(loss: InnerLoss, weights: Weights, parts: Sequence[Any]) -> tuple[list[Tensor], Tensor]:
    """Gradient of the loss summed over `parts` (and tasks), and the loss; 0 for weights that it does not reach."""
    of_part = loss.gradient if _brings_gradient(loss) else _Plain(loss).gradient
    total, value = of_part(weights, parts[0])
    refuse_unfit(value, weights)
    for part in parts[1:]:
        more, more_value = of_part(weights, part)
        _add(total, more)
        value = value + more_value
    return total, value


def product(
    loss: InnerLoss,
    weights: Weights,
    part: Any,
    vector: Sequence[Tensor],
    also: Sequence[Tensor],
    seen: Seen | None = None,
) -> Product:
    """Hessian-vector product of the loss of one micro-batch: d<gradient, vector> by the weights and by `also`.

    `seen` is shown the loss and what there is of its gradient.
    """
    of_part = loss.product if brings_derivatives(loss) else _Plain(loss).product
    return of_part(weights, part, vector, also, seen)


def _add(total: list[Tensor], more: Sequence[Tensor]) -> None:
    """Add one by one, but not in place: autograd may give two weights the same tensor, or an expanded one."""
    for index, share in enumerate(more):
        total[index] = total[index] + share


def plain_gradient(loss: InnerLoss, weights: Weights, part: Any) -> tuple[list[Tensor], Tensor]:
    """`gradient` of one micro-batch by autograd."""
    return _Plain(loss).gradient(weights, part)


def plain_product(
    loss: InnerLoss,
    weights: Weights,
    part: Any,
    vector: Sequence[Tensor],
    also: Sequence[Tensor],
    seen: Seen | None = None,
) -> Product:
    """`product` of one micro-batch by autograd."""
    return _Plain(loss).product(weights, part, vector, also, seen)


class _Plain:
    """By autograd, reverse over reverse."""

    def __init__(self, loss: InnerLoss) -> None:
        self.loss = loss

    def gradient(self, weights: Weights, part: Any) -> tuple[list[Tensor], Tensor]:
        at = leaves(weights)
        with torch.enable_grad(), needing(Need.first), in_words():
            value = value_of(self.loss, at, part)
            found = gradients_of(value, at)
        return found, value.detach()

    def product(
        self,
        weights: Weights,
        part: Any,
        vector: Sequence[Tensor],
        also: Sequence[Tensor],
        seen: Seen | None = None,
    ) -> Product:
        at = leaves(weights)
        inputs = [*at.values(), *also]
        with torch.enable_grad(), needing(Need.curvature), sparing() as spared, differentiable_twice(), in_words():
            value = self.loss(at, part)
            self._refuse_unnamed_learners(value, at, part, inputs)
            first = gradients_of(value, at, create_graph=True)
            if seen is not None:
                owned = zip(at.values(), first, strict=True)
                seen(value, [None if id(w) in spared else g for w, g in owned])
            reached = [(g, v) for g, v in zip(first, vector, strict=True) if g.requires_grad]
            if not reached:  # a loss linear in its weights
                return [torch.zeros_like(x) for x in at.values()], [torch.zeros_like(x) for x in also]
            outputs, vectors = zip(*reached, strict=True)
            found = torch.autograd.grad(outputs, inputs, vectors, allow_unused=True, materialize_grads=True)
        return list(found[: len(at)]), list(found[len(at) :])

    def _refuse_unnamed_learners(self, value: Tensor, at: Weights, part: Any, known: Sequence[Tensor]) -> None:
        """Leaves that the loss makes itself, to take a gradient by its data, are others when it runs again."""
        if found := _unnamed([value], known):
            with replayed(random_state(value.device), value.device):
                again = _unnamed([self.loss(at, part)], known)
            for leaf in found:
                if any(leaf is other for other in again):
                    raise unnamed_learner(leaf)


def refuse_unnamed_learners(values: Sequence[Tensor], known: Sequence[Tensor], what: str = "inner loss") -> None:
    """A leaf that asks for a gradient is among `known` or behind one of them, or it would silently get none.

    Raises:
        UserError: `what`, whose results `values` are, depends on another.
    """
    for leaf in _unnamed(values, known):
        raise unnamed_learner(leaf, what)


def _unnamed(values: Sequence[Tensor], known: Sequence[Tensor]) -> list[Tensor]:
    """Leaves that `values` depend on and are neither among `known` nor behind one of them."""
    stops = {tensor.grad_fn for tensor in known if tensor.grad_fn is not None}
    seen, waiting, found = set(stops), [value.grad_fn for value in values], []
    named = {id(tensor) for tensor in known}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of a node that accumulates a leaf's gradient
        if leaf is not None and id(leaf) not in named:
            found.append(leaf)
        waiting.extend(following for following, _ in node.next_functions)
    return found


class UnnamedLearner(UserError, ValueError):
    """An inner loss learns by a tensor which `adapt` was not told of."""


def unnamed_learner(tensor: Tensor, what: str = "inner loss") -> UnnamedLearner:
    """The error of an inner loss that learns by a tensor which `adapt` was not told of."""
    return UnnamedLearner(
        f"the {what} depends on a learning tensor of shape {list(tensor.shape)} that is not a fast weight; "
        "name it in adapt(..., also=[...]), or freeze it with requires_grad_(False)"
    )


def random_state(device: torch.device) -> list[Tensor]:
    """State of the generators that a loss on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def replayed(states: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Draw the numbers that followed `random_state`, and go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], device)
        yield
