"""TEMP-LORA: adapters that are learned while episodes are generated (Section 3.2, Eq. 3, Appendix B.2).

    lora = TempLora(network, diffusion, config.fast, kind, seed)
    lora.attach()
    memory = lora.start(ids)                               # Theta_0: adds nothing
    memory = lora.write(memory, past, new, action, chunk)  # after each chunk
    lora.save(memory, 0, folder, base)                     # a peft adapter
    memory = lora.open(folder, base)

A memory is that of one episode or of several, a stack; the network's own weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from common.engine.derivatives import gradient
from common.engine.inner import adapt
from common.engine.lora import make_stackable
from common.engine.rates import LearnedRates, Rates
from common.engine.rules import SGD, AdamW, Momentum, RuleState, UpdateRule
from common.engine.settings import RateSpace, RuleName, Unroll
from common.engine.weights import Weights, stack, unstack
from common.errors import UserError
from common.run import memory as files
from slowfast_vgen.diffusion.diffusion import Diffusion
from slowfast_vgen.networks.config import PART, TEMPORAL, Kind
from slowfast_vgen.noise import Noise, normal, strata
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.pairs import Pair, drawn, kept
from slowfast_vgen.settings import FastConfig, Form, Moments

SCHEMA = 1
"""Of `memory.json`."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Latents, actions, clean frames, times and noise, as `denoising_loss` takes them."""


@dataclass(frozen=True)
class _Note(files.Note):
    chunks: int
    """That were written into it."""


@dataclass(frozen=True)
class Memory:
    """Theta of some episodes."""

    ids: tuple[str, ...]
    weights: Weights
    """Fast matrices, each [episodes, ...]."""
    state: RuleState = field(default_factory=RuleState)
    chunks: int = 0
    """Written so far."""
    pairs: tuple[Pair, ...] = ()
    """Of source=full and source=reservoir, all that a step may see."""

    def rolled(self) -> Memory:
        """Every episode has the memory of the one before it."""
        return replace(self, weights={name: value.roll(1, 0) for name, value in self.weights.items()})

    def detached(self) -> Memory:
        """The same numbers without history."""
        return replace(self, weights={name: value.detach() for name, value in self.weights.items()})

    def at(self, rows: Tensor) -> Weights:
        """The matrices of some episodes, perhaps several times; a stack."""
        return {name: value[rows] for name, value in self.weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """What an episode needs to go on elsewhere to the same bits: adapter, moments, and what noise is keyed by."""
        pairs = [{"clip": each.clip, "given": each.given, "action": each.action} for each in self.pairs]
        buffers = {name: list(each) for name, each in self.state.buffers.items()}
        return {
            "ids": list(self.ids), "weights": dict(self.weights), "count": self.state.count, "buffers": buffers,
            "chunks": self.chunks, "pairs": pairs,
        }  # fmt: skip

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Memory:
        """The memory that `state_dict` described."""
        rule = RuleState(state["count"], {name: list(each) for name, each in state["buffers"].items()})
        pairs = tuple(Pair(**each) for each in state["pairs"])
        return cls(tuple(state["ids"]), dict(state["weights"]), rule, state["chunks"], pairs)


class TempLora:
    """Attaches an adapter to a denoiser and learns it, for one episode or for a stack of them."""

    def __init__(
        self,
        network: nn.Module,
        diffusion: Diffusion,
        config: FastConfig,
        kind: Kind,
        seed: int,
        *,
        outside: bool = True,
    ) -> None:
        """Nothing changes before `attach`.

        Args:
            network: a denoiser whose weights stay trainable.
            diffusion: what it predicts.
            config: `fast.*`.
            kind: of the denoiser; where `fast.layers` names none, its temporal layers.
            seed: of A and of the noise.
            outside: whether matrices that are not fast learn in outer steps.

        Raises:
            UserError: a pattern matches no layer, or is one for the whole network.
        """
        temporal = list(TEMPORAL[kind])
        patterns = config.layers or temporal
        if whole := [each for each in patterns if not each.strip("*")]:
            raise UserError(
                f"fast.layers={patterns}: {whole[0]!r} is the whole network; name the layers, such as {temporal}"
            )
        self.network, self.diffusion, self.config, self.seed = network, diffusion, config, seed
        self.outside = outside
        self.part = PART[kind]
        self.targets = layers(network.get_submodule(self.part), patterns, "fast.layers")
        self.noise, self.times, self.picks = (Noise(seed, "fast", what) for what in ("noise", "time", "pick"))
        self._adapter: Adapter | None = None

    @property
    def attached(self) -> bool:
        """Has the network its adapter?"""
        return self._adapter is not None

    @property
    def adapter(self) -> Adapter:
        """That of the network.

        Raises:
            RuntimeError: it is not attached yet.
        """
        if self._adapter is None:
            raise RuntimeError("TempLora.attach comes first")
        return self._adapter

    def attach(self) -> None:
        """Give the network its adapter, once; as it starts it adds nothing. What learns outside stays trainable, and so
        does A where B alone is fast and `outside` says so.
        """
        if self._adapter is not None:
            return
        config, learning = self.config, [weight for weight in self.network.parameters() if weight.requires_grad]
        alpha = config.rank if config.alpha is None else config.alpha
        self._adapter = Adapter(self.network, self.part, target_modules=self.targets, r=config.rank, lora_alpha=alpha)
        make_stackable(self.network)
        for weight in learning:  # peft freezes them
            weight.requires_grad_(True)
        own = self._adapter.matrices()
        _initialise(own, self.seed)
        self.names = [name for name in own if any(f"lora_{which}." in name for which in config.weights)]
        for name, matrix in own.items():
            matrix.requires_grad_(self.outside and name not in self.names)
        self.rates = LearnedRates(
            self.names, steps=config.steps, start=config.lr, space=RateSpace.exp, learned=config.learned
        ).to(learning[0].device)

    def state_dict(self) -> dict[str, Any]:
        """What outer steps change: matrices that are not fast, and the rates; nothing before `attach`."""
        if self._adapter is None:
            return {}
        return {"matrices": self._adapter.matrices(), "rates": self.rates.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; attaches where that was attached."""
        if not state:
            return
        self.attach()
        own = self.adapter.matrices()
        if own.keys() != state["matrices"].keys():
            raise RuntimeError(f"other layers have an adapter: {sorted(own.keys() ^ state['matrices'].keys())[:4]}")
        with torch.no_grad():
            for name, value in state["matrices"].items():
                own[name].copy_(value)
        self.rates.load_state_dict(state["rates"])

    @property
    def rule(self) -> UpdateRule:
        """Of a fast step."""
        if self.config.rule is RuleName.sgd:
            return SGD()
        if self.config.rule is RuleName.momentum:
            return Momentum()
        return AdamW(eps=self.config.eps, weight_decay=0.0)

    def start(self, ids: Sequence[str]) -> Memory:
        """Theta_0 for each episode; B is 0, so it adds nothing."""
        own = self.adapter.matrices()
        return Memory(tuple(ids), stack({name: own[name] for name in self.names}, len(ids)))

    def write(self, memory: Memory, past: Tensor, new: Tensor, action: Tensor, unroll: Unroll = Unroll.none) -> Memory:
        """Theta after one more chunk; `memory` stays what it was.

        Args:
            memory: Theta before.
            past: latents that the chunk was generated from [episodes, frames, values, height, width].
            new: the chunk.
            action: int64 [episodes]; the form `clip` does not look at it.
            unroll: whether an outer gradient passes through the steps; `none` keeps no graph.
        """
        pair = Pair(torch.cat([past, new], 1), past.shape[1], action)
        chunk = memory.chunks
        pairs = kept(self.config, memory.pairs, pair, self.picks.keys(memory.ids, chunk, -1)[:, 0], chunk)
        rates: Rates | float = self.rates if self.config.learned else self.config.lr
        fresh = self.config.state is Moments.fresh
        found = adapt(
            self._loss,
            memory.weights,
            lambda step: [self._batch(memory.ids, pairs, pair, chunk, step)],
            steps=self.config.steps,
            rule=self.rule,
            rates=rates,
            state=None if fresh else memory.state,
            unroll=unroll,
            also=[weight for weight in self.network.parameters() if weight.requires_grad],
        )
        return Memory(memory.ids, found.weights, found.state, chunk + 1, pairs)

    def first_gradient(self, memory: Memory, past: Tensor, new: Tensor, action: Tensor) -> Weights:
        """The gradient of the first step that `write` would take, of every fast tensor."""
        pair = Pair(torch.cat([past, new], 1), past.shape[1], action)
        found, _ = gradient(self._loss, memory.weights, [self._batch(memory.ids, (), pair, memory.chunks, 0)])
        return dict(zip(memory.weights, found, strict=True))

    def save(self, memory: Memory, episode: int, folder: str | Path, base: str) -> None:
        """Write the memory of one episode as a standard peft adapter, whole or not at all; an older one is replaced.

        `PeftModel.from_pretrained(network, folder)` then predicts the same, for a `network` with the slow weights; of
        UNet3D it is diffusers' own. To the bit without gradients, an episode by itself, slow weights frozen as by peft:
        torch multiplies in another order in a stack, and by weights that learn. `base` is where those lie.

        Raises:
            UserError: nothing was written into it yet, `folder` holds something else, or cannot be written.
        """
        if not memory.chunks:
            raise UserError(f"{folder}: an empty memory; generate a chunk before it is saved")
        note = _Note(SCHEMA, base, self.adapter.fingerprint(), memory.chunks)
        files.save(Path(folder).expanduser(), self.adapter.files(unstack(memory.weights, episode), base), note)

    def open(self, folder: str | Path, base: str, id: str = "opened") -> Memory:
        """A memory that was saved, of one episode, which is called `id`; the rule's state begins anew.

        Raises:
            UserError: there is none, it is damaged, or it belongs to other slow weights or another adapter.
        """
        place = Path(folder).expanduser()
        found, note = files.load(place, self.adapter, _Note, SCHEMA, base)
        own = self.adapter.matrices()
        if any(not value.equal(own[name]) for name, value in found.items() if name not in self.names):
            raise UserError(
                f"{place}: matrices that fast.weights={self.config.weights} leaves alone are not those of {base}; open "
                "it with the run that it was saved from"
            )
        return Memory((id,), {name: found[name][None] for name in self.names}, chunks=note.chunks)

    def _loss(self, weights: Weights, batch: Batch) -> Tensor:
        """Mean over the draws of each episode; [episodes]."""
        losses = denoising_loss(self.network, self.diffusion, *batch, weights=weights)
        return losses.view(-1, self.config.draws).mean(1)

    def _batch(self, ids: Sequence[str], pairs: Sequence[Pair], last: Pair, chunk: int, step: int) -> Batch:
        """What `denoising_loss` takes of one fast step: [episodes * draws, ...], episode after episode."""
        config, device = self.config, last.clip.device
        keys = self.picks.keys(ids, chunk, step, config.draws)
        clip, action = drawn(config.source, pairs, last, keys, step)
        original = config.form is Form.original
        given = last.given if original else 0
        clean = (torch.arange(clip.shape[1], device=device) < given).expand(len(clip), -1)
        t = self.diffusion.times(strata(self.times.keys(ids, chunk, step, config.draws))).flatten()
        noise = normal(self.noise.keys(ids, chunk, step, config.draws), last.clip.shape[1:]).flatten(0, 1)
        return clip, action if original else torch.zeros_like(action), clean, t.to(clip), noise.to(clip)


def _initialise(matrices: Weights, seed: int) -> None:
    """A of each layer normal with the layer's inputs as the reciprocal of its variance, B 0; not reported."""
    noise = Noise(seed, "A")
    with torch.no_grad():
        for name, weight in matrices.items():
            weight.zero_()
            if "lora_A." in name:
                inputs = weight[0].numel()
                weight.copy_(normal(noise.keys([name], 0)[0, 0], weight.shape) / inputs**0.5)
