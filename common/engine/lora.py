"""Stacked LoRA: many tasks adapt an adapter each while they share one frozen base.

peft attaches the adapter and stays in charge of it (scaling, rank-stabilised scaling, dropout, type casts, files). Here
its small matrices only learn to take weights with a leading task axis, so that `common.engine.weights` does the rest:

    network = make_stackable(peft.get_peft_model(base, config))
    start = stack(select(network, ["*lora_*"]), tasks)                       # every tensor [tasks, ...]
    scores = call(network, start, input_ids=ids.flatten(0, 1))               # ids [tasks, rows, length]
    network.save_pretrained(folder, state_dict=unstack(start, task))         # one task's adapter, for any peft

The batch is [tasks * rows, ...], task after task: a base layer runs once over all of it, a LoRA layer applies the
matrices of task t to the rows of task t. Hence every layer with LoRA must see the batch as its first axis, or that axis
split further (rows and pixels in the temporal attention of a video UNet). Tasks with fewer rows are filled up with rows
that the loss gives no weight; shorter rows are padded as the network allows without a stack (right padding, causal).
Dropout draws one mask over the whole batch.
"""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.engine.twice.linear import Linear
from common.engine.weights import Weights
from common.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


class StackableLinear(nn.Linear):
    """A linear layer without bias whose weight may be a stack, [tasks, out, in]."""

    def forward(self, input: Tensor) -> Tensor:
        """[tasks * rows, ..., in] -> [tasks * rows, ..., out].

        Raises:
            ValueError: the rows cannot be divided among the tasks.
        """
        if self.weight.dim() == 2:
            return super().forward(input)
        _refuse_uneven(input, self.weight)
        result = input.reshape(len(self.weight), -1, self.in_features) @ self.weight.mT
        return result.view(*input.shape[:-1], self.out_features)


class StackableConv1d(nn.Conv1d):
    """A convolution without bias whose weight may be a stack, [tasks, out, in, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """[tasks * rows, in, length] -> [tasks * rows, out, length'].

        Raises:
            ValueError: the rows cannot be divided among the tasks.
        """
        return super().forward(input) if self.weight.dim() == 3 else _convolve(self, input)


class StackableConv2d(nn.Conv2d):
    """A convolution without bias whose weight may be a stack, [tasks, out, in, height, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """[tasks * rows, in, height, width] -> [tasks * rows, out, height', width'].

        Raises:
            ValueError: the rows cannot be divided among the tasks.
        """
        return super().forward(input) if self.weight.dim() == 4 else _convolve(self, input)


class StackableConv3d(nn.Conv3d):
    """A convolution without bias whose weight may be a stack, [tasks, out, in, time, height, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """[tasks * rows, in, time, height, width] -> [tasks * rows, out, time', height', width'].

        Raises:
            ValueError: the rows cannot be divided among the tasks.
        """
        return super().forward(input) if self.weight.dim() == 5 else _convolve(self, input)


_STACKABLE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: StackableLinear,
    Linear: StackableLinear,  # the product that a lean one spares is small here
    nn.Conv1d: StackableConv1d,
    nn.Conv2d: StackableConv2d,
    nn.Conv3d: StackableConv3d,
}


def make_stackable(network: Network) -> Network:
    """Let the LoRA matrices that peft put into `network` take stacks; changes `network` in place and returns it.

    Parameters, names and results with weights of the usual shape stay as they are. Call it again after adding an
    adapter; while an adapter is merged or switched off, peft does not look at its weights.

    Raises:
        UserError: `network` has no LoRA, or a layer has a kind of it that cannot be stacked; nothing has changed then.
    """
    children = list(_lora_matrices(network))
    if not children:
        raise UserError(f"{type(network).__name__} has no LoRA layer: attach one with peft.get_peft_model first")
    for child in children:
        # In place rather than by a new module: parameters, hooks and what refers to the module stay what they are.
        child.__class__ = _STACKABLE.get(type(child), type(child))
    return network


def takes_stacks(network: nn.Module, weights: Weights) -> bool:
    """Whether all of `weights` belong to matrices of `network` that take a stack of them as it is."""
    kinds = tuple(_STACKABLE.values())
    return all(isinstance(network.get_submodule(name.rpartition(".")[0]), kinds) for name in weights)


def over_tasks(
    network: nn.Module, forward: Callable[[Weights, Tensor], Tensor], weights: Weights, ids: Tensor
) -> Tensor:
    """`forward(weights, ids)` of `network` for one task, or for every task of a stack at once.

    One forward pass over the rows of all tasks where all stacked weights are LoRA matrices, else `vmap`.

    Args:
        network: what `forward` calls with `weights`, which are named as in it.
        forward: ids [rows, length] -> [rows, ...].
        weights: of one task, or a stack.
        ids: int64 [rows, length]; with a stack [tasks, rows, length], task t under slice t of the weights.

    Returns:
        [rows, ...], or [tasks, rows, ...].
    """
    if ids.dim() == 2:
        return forward(weights, ids)
    if takes_stacks(network, weights):
        found = forward(weights, ids.flatten(0, 1))
        return found.view(*ids.shape[:2], *found.shape[1:])
    of_all: Tensor = torch.func.vmap(forward, randomness="different")(weights, ids)
    return of_all


def _lora_matrices(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of A and B of all adapters in all LoRA layers of `network`, each checked to be stackable."""
    from peft.tuners.lora import LoraLayer

    for name, layer in network.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if obstacle := _obstacle(layer):
            raise UserError(f"LoRA layer {name} cannot be stacked over tasks: {obstacle}")
        yield from layer.lora_A.values()
        yield from layer.lora_B.values()


def _obstacle(layer: nn.Module) -> str | None:
    """What keeps a LoRA layer of peft from being stacked, and the remedy."""
    from peft.tuners.lora.layer import Conv1d, Conv2d, Conv3d, Embedding, Linear

    if isinstance(layer, Embedding):
        return "it adapts an embedding; leave that out of target_modules"
    if not isinstance(layer, Linear | Conv1d | Conv2d | Conv3d):
        return (
            f"peft's {type(layer).__module__}.{type(layer).__name__} computes in its own way; "
            "use target_modules that are linear or convolution layers, not quantised"
        )
    if layer.lora_variant:
        kinds = ", ".join(sorted({type(variant).__name__ for variant in layer.lora_variant.values()}))
        return f"it uses the variant {kinds}; use plain LoRA (use_dora=False and the like)"
    if layer.merged:
        return "its adapter is merged into the base weight; call unmerge_adapter() first"
    if any(layer.lora_bias.values()):
        return "its B has a bias; use lora_bias=False"
    base = layer.get_base_layer()
    if base.bias is not None and base.bias.requires_grad and not base.weight.requires_grad:
        return "the bias of its frozen base is trained; use bias='none'"
    for child in (*layer.lora_A.values(), *layer.lora_B.values()):
        if type(child) not in {*_STACKABLE, *_STACKABLE.values()}:
            return f"its matrices are of type {type(child).__name__}, after the base layer; use torch's own layers"
    return None


def _convolve(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, input: Tensor) -> Tensor:
    """Convolution of [tasks * rows, in, ...] with the stack of weights of `layer`.

    B of every convolution, and A of those with a kernel of size one, are matrix products. For the rest one convolution
    a task is faster than a grouped one (torch's double backward loops over the groups anyway).
    """
    weights = layer.weight
    _refuse_uneven(input, weights)
    if math.prod(layer.kernel_size) == math.prod(layer.stride) == layer.groups == 1 and not any(layer.padding):
        rows = input.reshape(len(weights), -1, layer.in_channels, math.prod(input.shape[2:]))
        result = weights.flatten(2).unsqueeze(1) @ rows  # [tasks, rows, out, positions]
        return result.view(len(input), layer.out_channels, *input.shape[2:])
    parts = zip(input.chunk(len(weights)), weights, strict=True)
    return torch.cat([layer._conv_forward(part, weight, None) for part, weight in parts])


def _refuse_uneven(input: Tensor, weights: Tensor) -> None:
    """Raise unless the rows of `input` can be divided evenly among the tasks of `weights`."""
    tasks = len(weights)
    if len(input) % tasks:
        raise ValueError(
            f"LoRA weights {tuple(weights.shape)} are a stack for {tasks} tasks, so the input must be "
            f"[{tasks} * rows, ...], task after task; it has the shape {tuple(input.shape)}"
        )
