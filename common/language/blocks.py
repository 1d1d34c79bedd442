"""The layers of a network that repeat, and the network with few of them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from common.engine.adapter import MATRICES
from common.engine.weights import Weights


@dataclass(frozen=True)
class Blocks:
    """The longest list of layers in a network."""

    owner: nn.Module
    name: str
    """Of the list in its owner."""
    path: str
    """Of the list in the network, with a full stop behind it."""
    kinds: list[list[int]]
    """Places of the layers that are alike."""

    def place(self, weight: str) -> str:
        """Where a weight of this name is: in the first layer, in a further one, or outside of them."""
        if not weight.startswith(self.path):
            return "outside"
        return "first" if weight.startswith(f"{self.path}0.") else "further"

    def side(self, weight: str) -> str:
        """The same without a difference between the layers."""
        return "layers" if weight.startswith(self.path) else "outside"

    def evenly(self, network: nn.Module, fast: Collection[str]) -> bool:
        """Whether the derivatives go through the first layer as through the others, to its input or near it: what it
        reads are fast weights, or each of its matrices is one or has a LoRA matrix beside it.
        """
        read: Any = network.get_input_embeddings()  # type: ignore[operator]
        if any(weight is read.weight for name, weight in network.named_parameters() if name in fast):
            return True
        layer = network.get_submodule(f"{self.path}0")
        matrices = [f"{self.path}0.{name}" for name, weight in layer.named_parameters() if weight.dim() > 1]
        moved = {name.split(f".{MATRICES}")[0] for name in matrices if name in fast}
        return all(name in fast or name.split(".base_layer.")[0] in moved for name in matrices)

    @contextmanager
    def only(self, places: Sequence[int]) -> Iterator[None]:
        """Inside, the network has the layers of these places and no others."""
        layers: Any = getattr(self.owner, self.name)
        setattr(self.owner, self.name, nn.ModuleList([layers[place] for place in places]))
        try:
            yield
        finally:
            setattr(self.owner, self.name, layers)

    def renamed(self, weights: Weights, places: Sequence[int]) -> Weights:
        """Those of `weights`, named as in the whole network, that are in the one of these places, as named there."""
        new = {f"{self.path}{place}.": f"{self.path}{index}." for index, place in enumerate(places)}
        found = {}
        for name, weight in weights.items():
            if not name.startswith(self.path):
                found[name] = weight
                continue
            place, _, rest = name.removeprefix(self.path).partition(".")
            if (there := new.get(f"{self.path}{place}.")) is not None:
                found[f"{there}{rest}"] = weight
        return found


def blocks_of(network: nn.Module, fast: Collection[str]) -> Blocks | None:
    """The layers that repeat; those are alike whose modules and weights are, frozen, `fast` or neither. None without
    such a list.
    """
    lists = [
        (sum(weight.numel() for weight in module.parameters()), path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    if not lists:
        return None
    _, path, layers = max(lists, key=lambda each: each[0])
    kinds: dict[Any, list[int]] = {}
    for place, layer in enumerate(layers):
        weights = [
            (name, tuple(weight.shape), weight.requires_grad, f"{path}.{place}.{name}" in fast)
            for name, weight in layer.named_parameters()
        ]
        modules = [(name, type(module)) for name, module in layer.named_modules()]
        key = (tuple(weights), tuple(modules), getattr(layer, "attention_type", None))
        kinds.setdefault(key, []).append(place)
    owner, _, name = path.rpartition(".")
    return Blocks(network.get_submodule(owner), name, f"{path}.", list(kinds.values()))
