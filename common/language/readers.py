"""How a network reads rows that grow: from keys and values, from a state, or whole each time."""

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.engine.weights import Weights, call, unstack


class Reader(Protocol):
    """Next-token scores of rows that grow."""

    def start(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Read the prompts, int64 [tasks, rows, length], padded on the right; `ends` [tasks, rows] is the place of a
        row's last token. Scores of what comes next, [tasks, rows, words]."""
        ...

    def grow(self, tokens: Tensor) -> Tensor:
        """Read one more token of every row, int64 [tasks, rows]; scores of what comes next, [tasks, rows, words]."""
        ...


class CachedReader:
    """Keeps keys and values, so that a new token costs one token's work."""

    def __init__(self, network: nn.Module, weights: Weights, window: int, *, stacked: bool) -> None:
        """`window`: the model's context in tokens. `stacked`: `weights` have a leading task axis; else one task."""
        self.network, self.weights, self.window, self.stacked = network, weights, window, stacked
        self.spares_head = "logits_to_keep" in inspect.signature(network.forward).parameters
        self.kept: list[tuple[Tensor, Tensor]] = []

    def start(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Padding stands behind a row's end, so that causal attention never sees it here; `grow` masks it."""
        first = int(ends.min())
        self.ends = ends
        self.seen = torch.arange(ids.shape[-1], device=ids.device) <= ends[..., None]
        scores, self.kept = self._read(ids.shape[-1] - first, ids, {}, [])
        places = (ends - first)[..., None, None].expand(*ends.shape, 1, scores.shape[-1])
        return scores.gather(-2, places).squeeze(-2)

    def grow(self, tokens: Tensor) -> Tensor:
        """A row that is full, or ended, is read all the same; its scores mean nothing."""
        self.ends = (self.ends + 1).clamp(max=self.window - 1)
        self.seen = torch.cat([self.seen, torch.ones_like(self.seen[..., :1])], -1)
        dtype = next(iter(self.weights.values())).dtype
        added = torch.zeros_like(self.seen, dtype=dtype).masked_fill(~self.seen, torch.finfo(dtype).min)
        where = {"position_ids": self.ends[..., None], "attention_mask": added[..., None, None, :]}
        scores, self.kept = self._read(1, tokens[..., None], where, self.kept)
        return scores[..., -1, :]

    def _read(
        self, keep: int, ids: Tensor, where: dict[str, Any], kept: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Scores of the last `keep` places, and the keys and values of all places so far."""
        from transformers import DynamicCache

        more: dict[str, Any] = {"logits_to_keep": keep} if self.spares_head else {}

        def one_task(weights: Weights, ids: Tensor, where: dict[str, Any], kept: Any) -> Any:
            cache = DynamicCache(kept)
            output = call(self.network, weights, input_ids=ids, past_key_values=cache, use_cache=True, **where, **more)
            return output.logits[:, -keep:], [(layer.keys, layer.values) for layer in cache.layers]

        if self.stacked:
            over_tasks = torch.func.vmap(one_task, randomness="different")
            scores, pairs = over_tasks(self.weights, ids, where, kept)
            return scores, pairs
        scores, pairs = one_task(self.weights, ids[0], {name: value[0] for name, value in where.items()}, kept)
        return scores[None], pairs


class StateReader:
    """Keeps the state of a network without keys and values, such as Mamba: row by row, for a state has no padding."""

    def __init__(self, network: nn.Module, weights: Weights, *, stacked: bool) -> None:
        """`stacked`: `weights` have a leading task axis; else one task."""
        self.network, self.weights, self.stacked = network, weights, stacked
        self.states: list[list[Any]] = []

    def start(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Each row up to its end."""
        self.states = [[None] * ids.shape[1] for _ in ids]
        places = enumerate(ends.tolist())
        return self._read([[ids[task, row, : end + 1] for row, end in enumerate(own)] for task, own in places])

    def grow(self, tokens: Tensor) -> Tensor:
        """A row that has ended is read all the same; its scores mean nothing."""
        return self._read(tokens[..., None])

    def _read(self, rows: Any) -> Tensor:
        """Scores of what follows the pieces [tasks][rows][tokens], which follow what was read before."""
        scores = []
        for task, pieces in enumerate(rows):
            weights = unstack(self.weights, task) if self.stacked else self.weights
            for row, piece in enumerate(pieces):
                before = self.states[task][row]
                output = call(self.network, weights, input_ids=piece[None], cache_params=before, use_cache=True)
                self.states[task][row] = output.cache_params
                scores.append(output.logits[0, -1])
        return torch.stack(scores).view(len(rows), len(rows[0]), -1)


class WholeReader:
    """Keeps the tokens alone and reads a row again for each new one: right for every causal network, and slower."""

    def __init__(self, network: nn.Module, weights: Weights, window: int, *, stacked: bool) -> None:
        """`window`: the model's context in tokens. `stacked`: `weights` have a leading task axis; else one task."""
        self.network, self.weights, self.window, self.stacked = network, weights, window, stacked

    def start(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Padding stands behind a row's end, so that causal attention never sees it."""
        self.ids, self.ends = ids, ends
        return self._read()

    def grow(self, tokens: Tensor) -> Tensor:
        """The token takes the place behind the row's end; a row that is full is read all the same."""
        self.ends = (self.ends + 1).clamp(max=self.window - 1)
        self.ids = torch.cat([self.ids, tokens[..., None]], -1).scatter(-1, self.ends[..., None], tokens[..., None])
        return self._read()

    def _read(self) -> Tensor:
        def one_task(weights: Weights, ids: Tensor, ends: Tensor) -> Tensor:
            logits: Tensor = call(self.network, weights, input_ids=ids, use_cache=False).logits
            return logits.gather(1, ends[:, None, None].expand(-1, 1, logits.shape[-1])).squeeze(1)

        ids = self.ids[..., : int(self.ends.max()) + 1]
        if self.stacked:
            scores: Tensor = torch.func.vmap(one_task, randomness="different")(self.weights, ids, self.ends)
            return scores
        return one_task(self.weights, ids[0], self.ends[0])[None]


def has_state(network: nn.Module) -> bool:
    """Whether what it keeps of a row is a state, not keys and values."""
    return "cache_params" in inspect.signature(network.forward).parameters
