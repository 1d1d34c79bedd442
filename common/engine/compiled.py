"""An inner loss whose one-step gradient and Hessian-vector product are compiled.

The loss is traced once for every shape of its data into plain torch operations (`common.engine.traced`), its
derivatives are taken of that graph, and `torch.compile` fuses each into one program: no autograd graph at run time,
temporaries live as long as they are read, and what nobody reads is never computed. The product is forward over reverse.

A program stands for the loss as it was traced, so it is looked up by all that the loss reads, once a call of `adapt`
and once a backward pass: numbers, texts and switches in closures, defaults, globals and attributes, the modes and hooks
of networks, shapes of tensors (`common.engine.reached`), autocast and other switches of torch
(`common.engine.unroll.ambient`). Another value is another program. Tensors, those in the closure included, are never
copied into a program but passed in anew at every call, whether they were written to or replaced.

Not all can be looked at: objects without Python attributes, iterators, tensors whose values the loss reads (`.item()`).
Where the loss holds such a thing, its value is compared with the plain loss once a call of `adapt`, for one forward
pass, and a program that went stale is made again. What is refused: a loss that draws from other random generators than
torch's default ones, that is another at every call, or that writes to buffers (batch norm in training mode).

The first call for a shape takes from seconds to a minute. Programs are kept on disk (TORCHINDUCTOR_CACHE_DIR), so a
second run starts warm; tracing alone is repeated.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from common.engine.derivatives import (
    InnerLoss,
    Product,
    Seen,
    plain_gradient,
    plain_product,
    random_state,
    replayed,
    unnamed_learner,
)
from common.engine.reached import Reached, reached
from common.engine.traced import Traced, trace
from common.engine.twice.policy import Need, needing
from common.engine.unroll.ambient import Ambient
from common.engine.unroll.guard import apart
from common.engine.weights import Weights
from common.errors import UserError

logger = logging.getLogger(__name__)
MOST_SHAPES = 12
"""Shapes of data, and states of what the loss reads, that get a program of their own; further ones run uncompiled."""


class _Program:
    """What was compiled for one shape of data and one state of what the loss reads."""

    def __init__(self, traced: Traced, found: Reached) -> None:
        self.traced = traced
        self.found = Reached(found.values, found.places, alive=found.alive)  # no tensors
        self.gradient: Callable[..., list[Tensor]] | None = None
        self.products: dict[tuple[int, ...], Callable[..., list[Tensor]]] = {}
        """By the places of what else learns."""
        self.checked: object = None
        """The look at what the loss reads under which it was last compared with the loss."""


class Compiled:
    """An inner loss with compiled derivatives, for `adapt`; keep it over calls, as it owns the programs."""

    def __init__(self, loss: InnerLoss, module: nn.Module) -> None:
        """`module` is a network that `loss` calls: its state is part of what is compiled.

        Raises:
            UserError: there is no C++ compiler, which torch.compile needs for a CPU.
        """
        on_cpu = next(module.parameters()).device.type == "cpu"
        if on_cpu and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
            raise UserError(
                "inner.compile=true needs a C++ compiler, and none is on the PATH; install one (Debian and Ubuntu: apt "
                "install g++), or use inner.compile=false"
            )
        self.loss = self.__wrapped__ = loss
        self.module = module
        self._programs: dict[Any, _Program] = {}
        self._traces = 0
        self._warned = False

    def __call__(self, weights: Weights, part: Any) -> Tensor:
        """The loss itself, as it is."""
        return self.loss(weights, part)

    def gradient(self, weights: Weights, part: Any) -> tuple[list[Tensor], Tensor]:
        """See `common.engine.derivatives.Derivatives`.

        Raises:
            UserError: the loss cannot be compiled.
        """
        found = self._found(part)
        while (program := self._program(weights, part, found)) is not None:
            held = program.traced.bound(found)
            values, data = list(weights.values()), _tensors(part)
            if program.gradient is None:
                program.gradient = _compile(_gradient_of(program.traced.graph), values, data, held)
            before = random_state(values[0].device)
            with torch.no_grad():
                *gradients, value = program.gradient(values, data, held)
            if self._holds(program, weights, part, value, found, before):
                return gradients, value
        return plain_gradient(self.loss, weights, part)

    def product(
        self,
        weights: Weights,
        part: Any,
        vector: Sequence[Tensor],
        also: Sequence[Tensor],
        seen: Seen | None = None,
    ) -> Product:
        """See `common.engine.derivatives.Derivatives`.

        Raises:
            UserError: the loss cannot be compiled.
        """
        found = self._found(part)
        program = self._program(weights, part, found)
        if program is None:
            return plain_product(self.loss, weights, part, vector, also, seen)
        held = program.traced.bound(found)
        values, data, vector = list(weights.values()), _tensors(part), list(vector)
        places = [_place(tensor, held) for tensor in also]
        reached_by = tuple(place for place in places if place is not None)
        _refuse_unnamed_learners(held, also)
        if reached_by not in program.products:
            of_graph = _product_of(program.traced.graph, reached_by)
            program.products[reached_by] = _compile(of_graph, values, data, held, vector)
        with torch.no_grad():
            *through, value = program.products[reached_by](values, data, held, vector)
        if seen is not None:
            seen(value, [None] * len(values), program.traced.rough)
        rest = iter(through[len(values) :])
        return through[: len(values)], [
            torch.zeros_like(x) if place is None else next(rest) for x, place in zip(also, places, strict=True)
        ]

    def _found(self, part: Any) -> Reached:
        """All that the loss and what is no tensor of `part` hold."""
        others = [leaf for leaf in pytree.tree_leaves(part) if not isinstance(leaf, Tensor)]
        return reached(self.loss, self.module, *others)

    def _program(self, weights: Weights, part: Any, found: Reached) -> _Program | None:
        """Of these shapes and this state, traced now if they are new; None if there are too many."""
        tensors = [*weights.values(), *_tensors(part)]
        shapes = tuple((x.shape, x.dtype, x.device) for x in tensors)
        ambient = Ambient(tensors[0].device).key
        key = (tuple(weights), shapes, pytree.tree_structure(part), ambient, tuple(found.values))
        if key not in self._programs and self._traces < MOST_SHAPES:
            self._traces += 1
            self._programs[key] = _Program(trace(self.loss, weights, part, found), found)
        if key not in self._programs and not self._warned:
            self._warned = True
            logger.warning(
                "inner.compile=true: more than %d shapes of data%s; further ones run uncompiled (%s)",
                MOST_SHAPES, *self._excess(found)
            )  # fmt: skip
        return self._programs.get(key)

    def _excess(self, found: Reached) -> tuple[str, str]:
        """What else there is too much of, and what helps."""
        for program in reversed(self._programs.values()):
            if (place := found.differs_at(program.found)) is not None:
                return f" and values of what the loss reads ({place} is another)", "pass it as a tensor in the data"
        return "", "pad to fewer"

    def _holds(
        self,
        program: _Program,
        weights: Weights,
        part: Any,
        value: Tensor,
        found: Reached,
        before: Sequence[Tensor],
    ) -> bool:
        """Whether `value` is the loss's, asked where it is not certain; a program that is stale is forgotten.

        Raises:
            UserError: a program that was just made is stale already.
        """
        if program.checked is found.token or (program.checked is not None and not program.traced.doubtful):
            return True
        with torch.no_grad(), needing(Need.plain), replayed(before, value.device):
            plain = self.loss(weights, part)
        fresh, program.checked = program.checked is None, found.token
        if not bool(apart(plain, value, program.traced.rough).any()):
            return True
        if fresh:
            raise UserError(
                f"inner.compile=true: the compiled inner loss is {value.flatten()[0].item():.6g} where the loss is "
                f"{plain.flatten()[0].item():.6g}: it is another at every call (it draws random numbers of its own, "
                f"keeps a count, or takes from an iterator){_among(program.traced.doubts)}; give such things as data, "
                "or use inner.compile=false"
            )
        self._programs = {key: other for key, other in self._programs.items() if other is not program}
        return False


def _among(doubts: Sequence[str]) -> str:
    return f"; perhaps by {', '.join(doubts[:3])}" if doubts else ""


def _tensors(part: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(part) if isinstance(leaf, Tensor)]


def _gradient_of(graph: fx.GraphModule) -> Callable[..., list[Tensor]]:
    def run(values: list[Tensor], data: list[Tensor], held: list[Tensor]) -> list[Tensor]:
        def summed(*at: Tensor) -> tuple[Tensor, Tensor]:
            value = graph(*at, *data, *held)
            return value.sum(), value

        found, value = torch.func.grad(summed, argnums=tuple(range(len(values))), has_aux=True)(*values)
        return [*found, value]

    return run


def _product_of(graph: fx.GraphModule, also: Sequence[int]) -> Callable[..., list[Tensor]]:
    """Forward over reverse: the gradient by weights and by the held tensors `also`, moved along `vector`; the loss."""

    def run(values: list[Tensor], data: list[Tensor], held: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
        others = [held[place] for place in also]

        def first(*at: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            def summed(*both: Tensor) -> tuple[Tensor, Tensor]:
                inputs = list(held)
                for place, tensor in zip(also, both[len(at) :], strict=True):
                    inputs[place] = tensor
                value: Tensor = graph(*both[: len(at)], *data, *inputs)
                return value.sum(), value

            found: tuple[tuple[Tensor, ...], Tensor] = torch.func.grad(
                summed, argnums=tuple(range(len(at) + len(also))), has_aux=True
            )(*at, *others)
            return found

        through, value = torch.func.jvp(first, tuple(values), tuple(vector), has_aux=True)[1:]  # type: ignore[misc]
        return [*through, value]

    return run


def _compile(function: Callable[..., list[Tensor]], *inputs: list[Tensor]) -> Callable[..., list[Tensor]]:
    """A program for inputs of these shapes."""
    from torch._inductor.decomposition import select_decomp_table

    began = time.monotonic()
    detached = [[x.detach() for x in group] for group in inputs]
    with torch.no_grad():
        graph = make_fx(function, decomposition_table=select_decomp_table(), tracing_mode="fake")(*detached)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        # the same random numbers as without compilation, so that a step can be replayed by either
        program: Callable[..., list[Tensor]] = torch.compile(
            graph, fullgraph=True, dynamic=False, options={"fallback_random": True}
        )
        state = torch.get_rng_state()
        program(*detached)
        torch.set_rng_state(state)
    logger.info("compiled %d operations in %.0f s", len(graph.graph.nodes), time.monotonic() - began)
    return program


def _place(tensor: Tensor, held: Sequence[Tensor]) -> int | None:
    return next((index for index, other in enumerate(held) if other is tensor), None)


def _refuse_unnamed_learners(held: Sequence[Tensor], also: Sequence[Tensor]) -> None:
    for tensor in held:
        if tensor.requires_grad and all(tensor is not other for other in also):
            raise unnamed_learner(tensor)
