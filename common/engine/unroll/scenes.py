"""What decides a forward pass besides weights and data, kept step by step and set up again to rebuild a step.

That is: the states of random generators, the networks that the loss calls (their mode, every other number, text and
switch among their attributes, and the buffers that a forward pass writes to), and the `Ambient`. Networks are those
that `common.engine.weights.call` is given, and those that the loss reaches (`common.engine.reached`).
"""

import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from common.engine.buffers import kept, unseen
from common.engine.derivatives import random_state, replayed
from common.engine.met import telling
from common.engine.reached import Reached, reached
from common.engine.unroll.ambient import Ambient

_PLAIN = (type(None), bool, int, float, str)
State = tuple[Callable[[], Any], Callable[[Any], Any]]
"""How the state of a generator is read and set."""


@dataclass
class _Kept:
    """A buffer, and a copy of what it last held."""

    tensor: Tensor
    always: bool
    """Batch norm writes to its statistics without a trace in `_version`."""
    copy: Tensor
    first: int
    version: int

    def now(self) -> Tensor:
        """Its content, copied again if it may have changed."""
        version = 0 if self.always else self.tensor._version
        if self.always or version != self.version:
            self.copy, self.version = self.tensor.detach().clone(), version
        return self.copy

    @property
    def touched(self) -> bool:
        """Whether it may hold something else than at first."""
        return self.always or self.tensor._version != self.first


@dataclass
class _Scene:
    """One step's."""

    draws: list[Tensor]
    states: list[Any]
    contents: dict[int, Tensor] = field(default_factory=dict)
    slots: dict[tuple[int, str], Tensor | None] = field(default_factory=dict)
    plain: dict[int, dict[str, Any]] = field(default_factory=dict)


class Scenes:
    """Of the steps of one inner loop."""

    def __init__(self, device: torch.device, *functions: Any) -> None:
        """`functions`: the loss, and what else is called by the steps; None is passed over."""
        found = [reached(getattr(one, "__wrapped__", one)) for one in functions if one is not None]
        self.ambient, self._device = Ambient(device), device
        self._states = generator_states(*found)
        self._kept: dict[int, _Kept] = {}
        self._modules: dict[int, nn.Module] = {}
        self._buffers: dict[int, dict[str, nn.Module]] = {}
        self._seen: dict[int, tuple[Any, ...]] = {}
        """By module: names and values of the attributes that `_plain` last found numbers and texts among."""
        self._steps: list[_Scene] = []
        for module in (module for each in found for module in each.modules):
            self._meet(module, {})

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Around the steps that are taken."""
        with telling(self._meet):
            yield

    def begin(self) -> None:
        """A step begins."""
        scene = _Scene(random_state(self._device), [read() for read, _ in self._states])
        if len(self._steps) == 1:  # generators that the first step left alone are no part of the loss
            first = self._steps[0].states
            drawn = moved(first, scene.states)
            for states in (self._states, first, scene.states):
                states[:] = [state for state, kept in zip(states, drawn, strict=True) if kept]
        last = self._steps[-1].plain if self._steps else {}
        self._steps.append(scene)
        scene.contents = {key: own.now() for key, own in self._kept.items()}
        for key, module in self._modules.items():
            own = vars(module)
            seen = (*own, *own.values())
            if key in last and len(seen) == len(before := self._seen.get(key, ())) and all(map(is_, seen, before)):
                scene.plain[key] = last[key]
            else:
                scene.plain[key], self._seen[key] = _plain(module), seen
            self._note_slots(module, scene)

    @contextmanager
    def again(self, step: int) -> Iterator[None]:
        """As when `step` began; what stands there now stands there again afterwards."""
        scene = self._steps[step]
        with ExitStack() as stack:
            stack.enter_context(replayed(scene.draws, self._device))
            for (read, write), state in zip(self._states, scene.states, strict=True):
                stack.callback(write, read())
                write(state)
            for key, plain in scene.plain.items():
                own = vars(self._modules[key])
                stack.callback(_put_back, own, dict(own))
                own.update(plain)
            for (key, name), tensor in scene.slots.items():
                buffers = self._modules[key]._buffers
                stack.callback(buffers.__setitem__, name, buffers.get(name))
                buffers[name] = tensor
            now: dict[int, Tensor] = {}
            stack.callback(self._put_back, scene, now)
            for key, content in scene.contents.items():
                if (buffer := self._kept[key]).touched:
                    now[key] = buffer.tensor.detach().clone()
                    buffer.tensor.data.copy_(content)  # `data`: a graph outside may have saved the buffer
            yield

    def _put_back(self, scene: _Scene, now: Mapping[int, Tensor]) -> None:
        """What buffers held `now`, or when they were met if that was later."""
        for key, content in scene.contents.items():
            if (own := self._kept[key]).touched:
                own.tensor.data.copy_(now.get(key, content))

    def _meet(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """A network is about to be called, with these in place of its own weights and buffers."""
        scene = self._steps[-1] if self._steps else None
        if id(module) not in self._buffers:
            named = self._buffers[id(module)] = {}
            for prefix, part in module.named_modules():
                if isinstance(part, torch.jit.ScriptModule):
                    continue  # which keeps its tables to itself
                named |= {f"{prefix}.{name}" if prefix else name: part for name in part._buffers}
                if id(part) not in self._modules:
                    self._modules[id(part)] = part
                    for buffer in part._buffers.values():
                        self._keep(buffer, part.training, scene)
                    if scene is not None:
                        scene.plain[id(part)] = _plain(part)
                        self._note_slots(part, scene)
        for name, part in self._buffers[id(module)].items():
            if name in weights:
                self._keep(_unwrapped(weights[name]), part.training, scene)

    def _note_slots(self, module: nn.Module, scene: _Scene) -> None:
        for name, buffer in module._buffers.items():
            scene.slots[id(module), name] = buffer
            self._keep(buffer, module.training, scene)

    def _keep(self, buffer: Tensor | None, training: bool, scene: _Scene | None) -> None:
        if buffer is None or id(buffer) in self._kept or not kept(buffer, training):
            return
        always = unseen(buffer, training)
        with _disable_current_modes(), torch._C._DisableFuncTorch():  # the loss may be traced meanwhile
            copy, version = buffer.detach().clone(), 0 if always else buffer._version
        self._kept[id(buffer)] = _Kept(buffer, always, copy, version, version)
        if scene is not None:
            scene.contents[id(buffer)] = copy


def generator_states(*found: Reached) -> list[State]:
    """Of Python's and numpy's generators, and of all that were found; torch's default ones are not among them."""
    states: list[State] = [(random.getstate, random.setstate)]
    if (numpy := sys.modules.get("numpy")) is not None:
        states.append((numpy.random.get_state, numpy.random.set_state))
    own = {id(generator): generator for each in found for generator in each.generators}
    return [*states, *map(_state_of, own.values())]


def moved(before: Sequence[Any], after: Sequence[Any]) -> list[bool]:
    """Which of the states are others."""
    return [pickle.dumps(a) != pickle.dumps(b) for a, b in zip(before, after, strict=True)]


def _plain(module: nn.Module) -> dict[str, Any]:
    """The numbers, texts and switches among the attributes of a module; `training` is one of them."""
    return {name: value for name, value in vars(module).items() if type(value) in _PLAIN}


def _put_back(own: dict[str, Any], before: dict[str, Any]) -> None:
    """Attributes as they were, those that a forward pass left included."""
    for name in own.keys() - before.keys():
        del own[name]
    own.update(before)


def _unwrapped(tensor: Tensor) -> Tensor:
    """The tensor in memory behind one that a transform of `torch.func` shows."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _state_of(generator: Any) -> State:
    if isinstance(generator, torch.Generator):
        return generator.get_state, generator.set_state
    if isinstance(generator, random.Random):
        return generator.getstate, generator.setstate
    if hasattr(generator, "get_state"):  # numpy's older kind
        return generator.get_state, generator.set_state
    bits = getattr(generator, "bit_generator", generator)
    return lambda: bits.state, lambda state: setattr(bits, "state", state)
