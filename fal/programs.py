"""The gradient of what an adversary maximises, by its points alone, as one program of plain operations.

An attack takes the same gradient again and again. The first time at a shape it is traced: forward pass, loss and
backward pass become one list of operations on tensors, without modules, `vmap` and graph at run time. With
`compiled` the list is fused by `torch.compile` too, whose programs are kept on disk (TORCHINDUCTOR_CACHE_DIR).
"""

import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from common.engine.derivatives import gradient

log = logging.getLogger(__name__)
Values = Callable[..., Tensor]
"""(points, tensors that it is by, ...) -> values [items]."""
Program = Callable[..., tuple[Tensor, Tensor]]
"""(points, tensors that it is by, ...) -> gradient of the sum by the points, and the values."""


class Programs:
    """By what is computed, and shapes and strides of all tensors."""

    def __init__(self, *, compiled: bool = False) -> None:
        """`compiled`: fuse them; the first call at a shape then takes seconds."""
        self.compiled = compiled
        self._made: dict[Hashable, Program] = {}

    def of(self, what: Hashable, values: Values, points: Tensor, *by: Tensor) -> Program:
        """The program of `values` at the shapes of these tensors, for calls under `torch.no_grad()`.

        Args:
            what: names `values`, which must depend on its tensors and on nothing that changes.
            values: what is differentiated.
            points: where, [items, ...].
            by: the other tensors.
        """
        layouts = ((tensor.shape, tensor.stride()) for tensor in (points, *by))
        key = (what, points.dtype, points.device, *layouts)
        if key not in self._made:
            self._made[key] = self._program(values, points, by)
        return self._made[key]

    def _program(self, values: Values, points: Tensor, by: tuple[Tensor, ...]) -> Program:
        def differentiated(points: Tensor, *by: Tensor) -> tuple[Tensor, Tensor]:
            (found,), value = gradient(lambda at, _: values(at["x"], *by), {"x": points}, (None,))
            return found, value

        try:
            with torch.no_grad():
                graph = make_fx(differentiated)(points, *by)
        except RuntimeError as error:  # its way depends on numbers; if it is wrong it is so below, too
            log.info("the attack's gradient is not traced, so it takes longer: %s", str(error).partition("\n")[0])
            return differentiated
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])  # there is no graph to detach from
        graph.graph.eliminate_dead_code()
        graph.recompile()
        if not self.compiled:
            return graph.forward
        return torch.compile(graph, fullgraph=True, dynamic=False)
