"""Next-token losses of a causal language model, as a module that can be called with other weights."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from common.engine.cuda import bf16
from common.engine.lora import over_tasks
from common.engine.twice.linear import Linear
from common.engine.weights import Weights, call
from common.language import cross_entropy

logger = logging.getLogger(__name__)


class TokenLosses(nn.Module):
    """Next-token losses of a causal language model of `transformers` (or of `peft` around one).

    Whether the model's logits are its linear head on its last hidden states and nothing else (no scale, no soft cap)
    is found out here by one forward pass; a model that does more keeps its own logits, which are then held in full.
    """

    def __init__(self, network: nn.Module, *, autocast: bool = False) -> None:
        """`autocast`: matrix products in bfloat16, whatever follows them in float32 (`common.engine.cuda.bf16`)."""
        super().__init__()
        self.network, self.autocast = network, autocast
        head = _causal(network).get_output_embeddings()
        large = len(head.weight) >= cross_entropy.SMALL_VOCABULARY
        self.chunked = large and _ends_in(network, head)
        if large and not self.chunked:
            logger.warning("%s does more than apply a linear head: all its logits are held", type(network).__name__)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` int64 [rows, length >= 2] -> losses of tokens 1, 2, ...; float [rows, length - 1].

        Raises:
            ValueError: the rows have one token.
        """
        if ids.shape[1] < 2:
            raise ValueError("rows of one token have nothing to predict")
        given, targets = ids[:, :-1], ids[:, 1:]
        with self._products(ids.device):
            if self.chunked:
                hidden = _causal(self.network).base_model(input_ids=given, use_cache=False).last_hidden_state
                losses = self._of_states(hidden, targets)
            else:
                logits = self.network(input_ids=given, use_cache=False).logits
                losses = cross_entropy.composite(logits.flatten(0, 1), targets.flatten())
        return losses.view_as(targets)

    def with_states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The same losses, and what they were calculated from: the last hidden states of all tokens.

        `ids` int64 [rows, length >= 2] -> float [rows, length - 1] and float [rows, length, width].
        """
        if ids.shape[1] < 2:
            raise ValueError("rows of one token have nothing to predict")
        targets = ids[:, 1:]
        with self._products(ids.device):
            if self.chunked:
                states = _causal(self.network).base_model(input_ids=ids, use_cache=False).last_hidden_state
                losses = self._of_states(states[:, :-1], targets)
            else:
                output = self.network(input_ids=ids, use_cache=False, output_hidden_states=True)
                states = output.hidden_states[-1]
                losses = cross_entropy.composite(output.logits[:, :-1].flatten(0, 1), targets.flatten())
        return losses.view_as(targets), states

    def under(self, weights: Weights, ids: Tensor) -> Tensor:
        """The same with `weights`, named as in the network, in place of its own.

        `ids` int64 [rows, length] -> [rows, length - 1]; with stacked weights [tasks, rows, length] ->
        [tasks, rows, length - 1], task t under slice t of the weights.
        """

        def one_task(task_weights: Weights, task_ids: Tensor) -> Tensor:
            losses: Tensor = call(self, {f"network.{name}": w for name, w in task_weights.items()}, task_ids)
            return losses

        return over_tasks(self.network, one_task, weights, ids)

    def _of_states(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[rows, length, width] -> [rows * length]."""
        head = _causal(self.network).get_output_embeddings()
        weight = head.weight
        if self.autocast:  # `token_losses` multiplies what it is given, whatever autocast says
            hidden, weight = hidden.bfloat16(), weight.bfloat16()
        return cross_entropy.token_losses(hidden.flatten(0, 1), weight, targets.flatten(), head.bias)

    def _products(self, device: torch.device) -> AbstractContextManager[Any]:
        return bf16(device) if self.autocast else nullcontext()


def _causal(network: Any) -> Any:
    """The model of `transformers`: what `peft` wrapped, or the network itself."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


@torch.no_grad()
def _ends_in(network: nn.Module, head: Any) -> bool:
    """Whether the logits are exactly a linear `head` on the last hidden states.

    The head's output is replaced by numbers up to 1000, which must come out of the network as they are: a soft cap is
    all but the identity on the logits of fresh weights.
    """
    if isinstance(head.weight, FakeTensor):  # sizes without numbers: nothing can be found out
        return True
    if type(head) not in (nn.Linear, Linear):  # a LoRA head starts as the linear one and does not stay it
        return False
    ids = torch.arange(3, device=head.weight.device)[None]
    given: list[Tensor] = []
    marks = torch.linspace(-1000, 1000, ids.numel() * head.out_features, device=ids.device, dtype=head.weight.dtype)

    def replace(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        given.append(inputs[0])
        return marks.view_as(output)

    modes = {module: module.training for module in network.modules()}
    network.eval()  # the two passes must not differ by dropout
    handle = head.register_forward_hook(replace)
    try:
        hidden = _causal(network).base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = network(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.equal(given[0], hidden) and torch.equal(logits.flatten().to(marks.dtype), marks)
