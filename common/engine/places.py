"""Where a module keeps a tensor: its parameters and buffers, attributes, items of plain containers, cells of closures.

A module that is reached by two names, or refers to itself, is looked at once.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from common.errors import UserError


class Cell:
    """Of the closure of a module's function; the name of its variable is its one key."""

    def __init__(self, cell: CellType) -> None:
        self._cell = cell

    def get(self, key: str, default: Any = None) -> Any:
        """What it holds, or `default` where it is empty."""
        try:
            return self._cell.cell_contents
        except ValueError:
            return default

    def __setitem__(self, key: str, value: Any) -> None:
        self._cell.cell_contents = value

    def pop(self, key: str, default: Any = None) -> None:
        """Make it empty."""
        del self._cell.cell_contents


Holder = dict[str, Any] | Cell
Slots = Mapping[tuple[int, str], Any]
"""(id of a holder, key) -> what is a module's own there while something else is in the place."""
KEPT = frozenset(vars(nn.Module()))
"""Attributes that every module has, among them those in which `torch.nn` keeps tensors by name."""
CACHES = ("_flat_weights",)
"""Attributes that a forward pass of torch's own modules fills with what it read: recurrent layers."""
CONTAINERS = (list, tuple, dict)
PLAIN = frozenset({type(None), bool, int, float, str})
TENSORS_IN = (Tensor, nn.Module, FunctionType, partial)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
DEEPEST, LONGEST = 3, 1000
"""Plain containers are looked into so many levels deep, and up to so many items."""


class Places:
    """Where tensors go that stand for those of a module."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor], before: Slots) -> None:
        """Finds the places and changes nothing. `before`: what is the module's own where another tensor is now.

        Raises:
            ValueError, UserError: as `common.engine.swap.swapped`.
        """
        if parametrize._cache_enabled:
            raise UserError(
                "torch.nn.utils.parametrize.cached() is on: it would answer with a parametrised weight of an earlier "
                "call; call and adapt outside of that block"
            )
        self.own: dict[tuple[int, str], Any] = {}
        """Of the parameters and buffers that something stands for."""
        self.all: list[tuple[Holder, str, Any]] = []
        """(holder, key, what goes there)."""
        self.buffers: list[tuple[Holder, str, Tensor]] = []
        """The buffers among them."""
        self.weights: list[tuple[str, Tensor]] = []
        """(key, what stands for a parameter)."""
        named = dict(module.named_modules())
        given = _given(module, named, weights, before)
        modules, plain = _reached(named)
        aliases: dict[int, Tensor] = {}
        for part in modules:
            if type(part).__name__ in PARALLEL:
                _refuse_splitting(part)
            for table in (part._parameters, part._buffers):
                for key, now in table.items():
                    own = before.get((id(table), key), now) if before else now
                    if id(own) in given:
                        value = aliases[id(now)] = given[id(own)]
                        self.own[id(table), key] = own
                        self.all.append((table, key, value))
                        if table is part._buffers:
                            self.buffers.append((table, key, value))
                        else:
                            self.weights.append((key, value))
                        if isinstance(part, EMBEDDINGS):
                            _refuse_unfit(part)
            if part._forward_pre_hooks:
                self.all.extend(_derived(part))
        for holder, key, value in plain:
            other = _replaced(value, aliases, DEEPEST)
            if other is not value or key in CACHES:
                self.all.append((holder, key, other))


def _derived(part: nn.Module) -> Iterator[tuple[Holder, str, Any]]:
    """What a hook of torch's weight and spectral norm or pruning calculates before each forward pass."""
    for hook in part._forward_pre_hooks.values():
        name = getattr(hook, "name", getattr(hook, "_tensor_name", None))
        if isinstance(name, str) and isinstance(vars(part).get(name), Tensor):
            yield vars(part), name, vars(part)[name]


def _given(
    module: nn.Module, named: dict[str, nn.Module], weights: Mapping[str, Tensor], before: Slots
) -> dict[int, Tensor]:
    """id of the module's own tensor -> the one that stands for it."""
    given: dict[int, Tensor] = {}
    names: dict[int, str] = {}
    unknown = []
    for name, value in weights.items():
        own = _own(module, named, name, before)
        if own is None:
            unknown.append(name)
        elif given.setdefault(id(own), value) is not value:
            raise UserError(
                f"{names[id(own)]} and {name} are one weight of {type(module).__name__}, tied or shared, and two "
                "tensors are given for it: name it once, as common.engine.weights.select does"
            )
        else:
            names.setdefault(id(own), name)
    if unknown:  # they would be ignored, and never learn
        first = next((name for name, _ in module.named_parameters()), None)
        raise ValueError(
            f"{type(module).__name__} has no parameter or buffer {sorted(unknown)}"
            + (f"; its names look like {first}" if first else "")
        )
    return given


def _own(module: nn.Module, named: dict[str, nn.Module], name: str, before: Slots) -> Tensor | None:
    """The module's own tensor called `name`, or None; a shared module has all of its names, a compiled one those of
    what it wraps too."""
    prefix, _, key = name.rpartition(".")
    part = named.get(prefix)
    if part is None:
        try:
            part = named[prefix] = module.get_submodule(prefix)
        except AttributeError:
            return None
    while part is not None:
        if isinstance(part, torch.jit.ScriptModule):
            raise UserError(
                f"{name} belongs to a scripted module (torch.jit), whose weights cannot be exchanged; use the module "
                "that it was made from"
            )
        for table in (part._parameters, part._buffers):
            found: Tensor | None = table.get(key)
            if found is not None:
                return before.get((id(table), key), found) if before else found
        part = part._modules.get("_orig_mod")  # of a compiled one
    return None


def _reached(named: Mapping[str, nn.Module]) -> tuple[list[nn.Module], list[tuple[Holder, str, Any]]]:
    """The modules themselves and those that they hold without `torch.nn` knowing, once each; and the attributes in
    which they may hold tensors: (attributes, name, value)."""
    seen: dict[int, nn.Module] = {id(part): part for part in named.values()}
    modules, plain = list(seen.values()), []
    for part in modules:  # grows
        for holder, key, value in _held(part):
            if not isinstance(value, nn.Module):
                plain.append((holder, key, value))
            for hidden in modules_in(value):
                for inner in hidden.modules() if id(hidden) not in seen else ():
                    if id(inner) not in seen:
                        seen[id(inner)] = inner
                        modules.append(inner)
    return modules, plain


def _held(part: nn.Module) -> list[tuple[Holder, str, Any]]:
    """What may hold tensors without `torch.nn` knowing: attributes, and cells of its functions and hooks."""
    own = vars(part)
    found: list[tuple[Holder, str, Any]] = [
        (own, key, value)
        for key, value in own.items()
        if type(value) not in PLAIN and key not in KEPT and _looked_into(value)
    ]
    functions = _of_class(type(part))
    if not (found or functions or part._forward_pre_hooks or part._forward_hooks):  # of most
        return found
    functions = [*functions, *part._forward_pre_hooks.values(), *part._forward_hooks.values()]
    functions += [value for _, _, value in found if isinstance(value, FunctionType | partial)]
    for function in functions:
        while isinstance(function, partial):
            function = function.func
        cells = [Cell(cell) for cell in getattr(function, "__closure__", None) or ()]
        found += [(cell, "", cell.get("")) for cell in cells if _looked_into(cell.get(""))]
    return found


def _looked_into(value: Any) -> bool:
    if type(value) in CONTAINERS:  # most hold numbers and names alone, and every forward pass comes by here
        return not PLAIN.issuperset(map(type, _items(value)))
    return isinstance(value, TENSORS_IN)


_functions: WeakKeyDictionary[type, list[Any]] = WeakKeyDictionary()
"""Those with a closure, by class."""


def _of_class(kind: type) -> list[Any]:
    found = _functions.get(kind)
    if found is None:
        bases = kind.__mro__[: kind.__mro__.index(nn.Module)]
        own = [f for base in bases for f in vars(base).values() if isinstance(f, FunctionType)]
        found = _functions[kind] = [f for f in own if {*f.__code__.co_freevars} - {"__class__"}]
    return found


def _items(value: Any) -> Any:
    """Of a plain container that is looked into, else nothing."""
    if type(value) not in CONTAINERS or len(value) > LONGEST:
        return ()
    return value.values() if isinstance(value, dict) else value


def modules_in(value: Any, depth: int = DEEPEST) -> Iterator[nn.Module]:
    """In a plain container, or itself."""
    if isinstance(value, nn.Module):
        yield value
    elif depth:
        for item in _items(value):
            yield from modules_in(item, depth - 1)


def _replaced(value: Any, aliases: Mapping[int, Tensor], depth: int) -> Any:
    """`value` with the tensors that others stand for replaced; itself where there is none."""
    if isinstance(value, Tensor):
        return aliases.get(id(value), value)
    if isinstance(value, partial):
        given = (value.args, value.keywords)
        replaced = _replaced(given, aliases, depth)
        return value if replaced is given else partial(value.func, *replaced[0], **replaced[1])
    items = list(_items(value)) if depth else []
    others = [_replaced(item, aliases, depth - 1) for item in items]
    if all(other is item for other, item in zip(others, items, strict=True)):
        return value
    return dict(zip(value, others, strict=True)) if isinstance(value, dict) else type(value)(others)


def _refuse_unfit(part: nn.Embedding | nn.EmbeddingBag) -> None:
    """A module that writes to its weight, or has a gradient that no rule takes."""
    if part.max_norm is not None:
        raise UserError(
            f"{type(part).__name__}(max_norm={part.max_norm}) writes to its own weight in the forward pass, and cannot "
            "run with another; use max_norm=None, or leave the weight out of inner.weights"
        )
    if part.sparse and torch.is_grad_enabled():
        raise UserError(
            f"{type(part).__name__}(sparse=True) has a sparse gradient, which inner rules do not take; use "
            "sparse=False, or leave the weight out of inner.weights"
        )


def _refuse_splitting(part: nn.Module) -> None:
    """A wrapper that runs copies of the weights, or reduces their gradients, by itself."""
    if not isinstance(part, nn.DataParallel) or len(part.device_ids) > 1:
        raise UserError(
            f"a network in {type(part).__name__} cannot run with other weights; give the network itself (its .module): "
            "common.engine.outer sums gradients over ranks"
        )
