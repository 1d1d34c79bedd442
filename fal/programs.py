"""Gradients of the local steps as programs of plain operations.

An attack takes the same gradient again and again, and so do local steps. The first time at a shape it is traced:
forward pass, loss and backward pass become one list of operations on tensors, without modules, `vmap` and graph at run
time. With `compiled` the list is fused by `torch.compile` too, whose programs are kept on disk
(TORCHINDUCTOR_CACHE_DIR); with `captured` it becomes a CUDA graph, which is replayed without a launch from Python.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from common.engine.cuda.graphs import record
from fal.convolutions import BACKWARD, input_gradient
from fal.shortening import shorten

log = logging.getLogger(__name__)
Program = Callable[..., Any]
"""Tensors -> tensors."""


class Programs:
    """By what is computed, and shapes and strides of all tensors."""

    def __init__(self, *, compiled: bool = False, captured: bool = False) -> None:
        """`compiled`: fuse them; the first call at a shape then takes seconds. `captured`: as graphs, on CUDA alone."""
        self.compiled, self.captured = compiled, captured
        self._made: dict[Hashable, Program] = {}

    def of(self, what: Hashable, differentiated: Program, *tensors: Tensor) -> Program:
        """The program of `differentiated` at the shapes of these tensors, for calls under `torch.no_grad()`.

        Args:
            what: names `differentiated`, which must depend on its tensors and on nothing that changes.
            differentiated: takes gradients by autograd, and gives them without a graph.
            tensors: what it is called with.
        """
        layouts = ((tensor.shape, tensor.stride()) for tensor in tensors)
        key = (what, tensors[0].dtype, tensors[0].device, *layouts)
        if key not in self._made:
            self._made[key] = self._program(differentiated, tensors)
        return self._made[key]

    def _program(self, differentiated: Program, tensors: tuple[Tensor, ...]) -> Program:
        try:
            with torch.no_grad():
                graph = make_fx(differentiated, decomposition_table={BACKWARD: input_gradient})(*tensors)
        except RuntimeError as error:  # its way depends on numbers; if it is wrong it is so below, too
            log.info("a gradient is not traced, so it takes longer: %s", str(error).partition("\n")[0])
            return differentiated
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])  # there is no graph to detach from
        shorten(graph.graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        program: Program = graph.forward
        if self.compiled:
            program = torch.compile(graph, fullgraph=True, dynamic=False)
        return _Captured(program, tensors) if self.captured else program


class _Captured:
    """A program at one shape as a CUDA graph, with the memory that it reads and writes."""

    def __init__(self, program: Program, tensors: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            self.held = [tensor.clone() for tensor in tensors]
            self.found, self.again = record(lambda: program(*self.held), tensors[0].device)

    def __call__(self, *tensors: Tensor) -> Any:
        """Copies in and out, as the next replay writes over what this one found."""
        torch._foreach_copy_(self.held, list(tensors))
        self.again()
        return tree_map(Tensor.clone, self.found)
