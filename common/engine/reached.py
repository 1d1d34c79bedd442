"""What a function reads besides its arguments: closure, defaults, globals, its object, and what they hold.

Code outside of torch, the standard library and installed packages is followed: the functions that it names, and the
attributes of objects whose names stand in it (all of them, where it asks for attributes by computed names). Objects of
installed packages are followed whole. What such packages hold to themselves is out of sight, and so are files, the
clock and the environment.
"""

import logging
import random
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from common.engine.own import installed, packaged

MOST = 20_000
"""Objects that are looked at; what holds more counts as unknown."""
_PLAIN = (
    type(None), bool, int, str, bytes, torch.dtype, torch.device, torch.layout, torch.memory_format, range,
)  # fmt: skip
_BY_COMPUTED_NAME = {"getattr", "vars", "__dict__", "asdict", "astuple", "attrgetter"}
_OWN_OF_MODULE = frozenset(vars(nn.Module())) - {"training"}
_VALUES = (int, float, complex, str, bytes)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_IGNORED = (logging.Logger, type(threading.Lock()), type(threading.RLock()))


@dataclass
class Reached:
    """What was found, in the order of a walk that is the same as long as `values` are."""

    values: list[Any] = field(default_factory=list)
    """Everything that Python code could branch on; hashable. Two walks of equal values have tensors in equal places."""
    places: list[str] = field(default_factory=list)
    """Where each of the values stands, for messages."""
    tensors: list[Tensor] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    """Networks, without those that are part of another."""
    generators: list[Any] = field(default_factory=list)
    """Of random numbers: torch's, Python's and numpy's."""
    unknown: list[str] = field(default_factory=list)
    """Places of what cannot be looked into."""
    alive: list[Any] = field(default_factory=list)
    """What stands in `values` by its id."""
    token: object = field(default_factory=object)
    """Of this walk."""

    def differs_at(self, other: "Reached") -> str | None:
        """The first place whose value is another, None if all are the same."""
        pairs = zip(self.values, other.values, self.places, strict=False)
        found = next((place for mine, theirs, place in pairs if mine != theirs), None)
        return found or (None if len(self.values) == len(other.values) else self.places[-1])


_names_read: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""By code: the names of attributes that it reads, found by earlier walks."""
_found: ContextVar[dict[tuple[int, ...], tuple[Any, Reached]] | None] = ContextVar("found", default=None)


@contextmanager
def steady() -> Iterator[None]:
    """Inside the block what the same roots hold is looked up once."""
    block = _found.get()
    token = _found.set({} if block is None else block)
    try:
        yield
    finally:
        _found.reset(token)


def reached(*roots: Any) -> Reached:
    """What `roots` (functions, or data) hold, walked one after the other."""
    block, key = _found.get(), tuple(map(id, roots))
    if block is not None and key in block:
        return block[key][1]
    first = getattr(roots[0], "__func__", roots[0]) if roots else None
    names = _names_read.setdefault(getattr(first, "__code__", type(first)), set())
    while True:
        size, walk = len(names), _Walk(names)
        for root in roots:
            walk.visit(getattr(root, "__name__", type(root).__name__), root)
        if len(names) == size:
            break
    if block is not None:
        block[key] = roots, walk.found
    return walk.found


class _Walk:
    def __init__(self, names: set[str]) -> None:
        self.names, self.found = names, Reached()
        self.all_names = not names.isdisjoint(_BY_COMPUTED_NAME)
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._inside = 0

    def visit(self, place: str, x: Any) -> None:
        kind = type(x)
        if kind in _PLAIN:
            return self._note(place, (kind, x))
        if kind is float or kind is complex:
            return self._note(place, (kind, repr(x)))  # tells -0.0 from 0.0, and nan from nothing
        if isinstance(x, Enum):
            return self._note(place, (kind, x.name))
        if isinstance(x, _VALUES):  # of a class of its own
            for base in filter(partial(isinstance, x), _VALUES):
                self._note(place, (kind, base.__repr__(x)))  # type: ignore[call-arg]
        if isinstance(x, _IGNORED):
            return None
        if id(x) in self._seen:
            return self._note(place, ("again", self._seen[id(x)]))
        if len(self._seen) >= MOST:
            return self._unknown(place, x)
        self._seen[id(x)] = len(self._seen)
        self._alive.append(x)  # an id of a temporary must not come back in this walk
        return self._open(place, x)

    def _open(self, place: str, x: Any) -> None:
        if isinstance(x, Tensor):
            self._tensor(place, x)
        elif hasattr(type(x), "gradient") and "__wrapped__" in vars(x):  # a loss with its own derivatives
            self.visit(place, x.__wrapped__)
        elif isinstance(x, nn.Module):
            if not self._inside:
                self.found.modules.append(x)
            self._inside += 1
            self._module(place, x)
            self._inside -= 1
        elif isinstance(x, FunctionType):
            self._function(place, x)
        elif isinstance(x, MethodType):
            self.visit(place, x.__self__)
            self.visit(place, x.__func__)
        elif isinstance(x, partial):
            self._items(place, "partial", [("function", x.func), *enumerate(x.args), *x.keywords.items()])
        elif isinstance(x, (tuple, list, deque)):
            self._items(place, type(x), [(f"[{i}]", value) for i, value in enumerate(x)])
        elif isinstance(x, (set, frozenset)):
            self._items(place, type(x), [("{}", value) for value in sorted(x, key=repr)])
        elif isinstance(x, (dict, Mapping)) and type(x).__module__ != "os":
            self._items(place, type(x), [(f"[{key!r}]", value) for key, value in x.items()], [*x])
            self.visit(f"{place}'s default", x.default_factory if isinstance(x, defaultdict) else None)
            self._attributes(place, x)
        elif isinstance(x, ContextVar):
            self.visit(f"{place}.get()", x.get(None))
        elif isinstance(x, (torch.Generator, random.Random)) or type(x).__module__.startswith("numpy.random"):
            self.found.generators.append(x)
            self._same(place, x)
        elif type(x).__module__ == "numpy":
            self._numpy(place, x)
        elif isinstance(x, type):
            self._same(place, x)
            self._class(place, x)
        elif isinstance(x, ModuleType):
            if not packaged(x.__name__):
                self._chosen(place, vars(x))
        elif isinstance(x, (staticmethod, classmethod, property)):
            self.visit(place, x.fget if isinstance(x, property) else x.__func__)
        elif isinstance(x, ref):
            self.visit(place, x())
        elif isinstance(x, Iterator):  # looking at it would use it up
            self._unknown(place, x)
        elif isinstance(x, BuiltinFunctionType) or not (hasattr(x, "__dict__") or hasattr(x, "__slots__")):
            self._same(place, x)
            owner = getattr(x, "__self__", None)
            if not callable(x):
                self._unknown(place, x)
            elif not isinstance(owner, ModuleType):  # `settings.get` reads what `settings` hold
                self.visit(f"{place}.__self__", owner)
        else:
            self._note(place, type(x))
            self._attributes(place, x)
            self._class(place, type(x))

    def _note(self, place: str, value: Any) -> None:
        self.found.values.append(value)
        self.found.places.append(place)

    def _same(self, place: str, x: Any) -> None:
        self._note(place, ("the", id(x)))
        self.found.alive.append(x)

    def _unknown(self, place: str, x: Any) -> None:
        self._same(place, x)
        self.found.unknown.append(f"{place} ({type(x).__name__})")

    def _items(self, place: str, kind: Any, items: list[tuple[Any, Any]], keys: list[Any] | None = None) -> None:
        self._note(place, (kind, len(items)))
        for key in keys or []:
            self.visit(place, key)
        for name, value in items:
            self.visit(f"{place}{name}", value)

    def _tensor(self, place: str, x: Tensor) -> None:
        self.found.tensors.append(x)
        stride = x.stride() if x.layout is torch.strided else ()
        self._note(place, (x.dtype, x.shape, stride, x.device, x.requires_grad))

    def _numpy(self, place: str, x: Any) -> None:
        if getattr(x, "nbytes", MOST) < MOST and not getattr(getattr(x, "dtype", None), "hasobject", True):
            self._note(place, (str(x.dtype), getattr(x, "shape", ()), x.tobytes()))
        elif callable(x):
            self._same(place, x)
        else:
            self._unknown(place, x)

    def _module(self, place: str, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):  # which keeps its tables to itself
            self._same(place, module)
            return self._items(place, type(module), [*module.named_parameters(), *module.named_buffers()])
        own = vars(module)
        self._note(place, type(module))
        for name, value in own.items():
            if name not in _OWN_OF_MODULE:
                self._note(place, name)
                self.visit(f"{place}.{name}", value)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in own[kind].items():
                self._note(place, name)
                self.visit(f"{place}.{name}", tensor)
        for kind in _HOOKS:
            for hook in own[kind].values():
                self.visit(f"{place}.{kind}", hook)
        for name, child in own["_modules"].items():
            self._note(place, name)
            self.visit(f"{place}.{name}", child)
        return self._class(place, type(module))

    def _function(self, place: str, x: FunctionType) -> None:
        self._note(place, ("code", id(x.__code__)))
        self.found.alive.append(x.__code__)
        if installed(x.__code__.co_filename):
            inner = getattr(x, "__wrapped__", None)  # a decorator of a package around code of the user's
            return self.visit(place, inner) if inner is not None else None
        named = _names(x.__code__)
        self.names |= named
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self.visit(name, value)
        self.visit(f"{place}'s defaults", x.__defaults__)
        self.visit(f"{place}'s defaults", x.__kwdefaults__)
        for name in sorted(named):
            if name in x.__globals__:
                self.visit(name, x.__globals__[name])
            elif isinstance(imported := sys.modules.get(name), ModuleType):  # inside the function
                self.visit(name, imported)
        return None

    def _class(self, place: str, kind: type) -> None:
        """Of the user's classes what the code names, and what operators call."""
        for base in kind.__mro__:
            if packaged(base.__module__) or (base is not kind and id(base) in self._seen):
                continue
            self._seen.setdefault(id(base), len(self._seen))
            for name, value in list(vars(base).items()):
                dunder = name.startswith("__") and isinstance(value, FunctionType) and name != "__init__"
                if dunder or (name in self.names and name not in ("__dict__", "__class__")):
                    self.visit(f"{base.__name__}.{name}", value)

    def _attributes(self, place: str, x: Any) -> None:
        own = dict(getattr(x, "__dict__", {}))
        for base in type(x).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in [slots] if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(x, name):
                    own[name] = getattr(x, name)
        if packaged(type(x).__module__):
            for name, value in own.items():
                self.visit(f"{place}.{name}", value)
        else:
            self._chosen(place, own)

    def _chosen(self, place: str, own: Mapping[str, Any]) -> None:
        """Those attributes that the code names."""
        for name, value in own.items():
            if name in self.names or (self.all_names and not isinstance(value, ModuleType)):
                self._note(place, name)
                self.visit(f"{place}.{name}", value)


def _names(code: CodeType) -> set[str]:
    """Names that the code and the functions defined in it read, and its texts that could be names."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            found.add(constant)
    return found
