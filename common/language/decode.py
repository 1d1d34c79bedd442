"""Greedy decoding for ragged prompts, with one set of weights or one a task; what was read is kept."""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.engine.weights import Weights, call, unstack
from common.language.model import LanguageModel


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


@torch.no_grad()
def greedy(
    reader: Reader,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    eos: int,
    new_tokens: int,
    window: int,
    device: torch.device,
) -> list[list[list[int]]]:
    """The most likely continuation of every prompt, cut before its end-of-text token.

    Rows are padded on the right and continued each at its own end, so a row gets the tokens it would get alone.

    Args:
        reader: the model.
        prompts: [tasks][rows][tokens]; tasks may have different numbers of rows.
        eos: end-of-text token, also used as padding.
        new_tokens: at most so many tokens are added, and never beyond `window`.
        window: the model's context in tokens.
        device: where the model is.

    Returns:
        [tasks][rows][new tokens].
    """
    found: list[list[list[int]]] = [[[] for _ in rows] for rows in prompts]
    lengths = [[len(row) for row in rows] for rows in prompts]
    going = [(t, r) for t, rows in enumerate(prompts) for r, row in enumerate(rows) if len(row) < window]
    if not going:
        return found
    ids = torch.full((len(prompts), max(map(len, prompts)), max(max(rows, default=0) for rows in lengths)), eos)
    ends = torch.full(ids.shape[:2], min(min(rows) for rows in lengths if rows) - 1)
    for task, rows in enumerate(prompts):
        for row, text in enumerate(rows):
            ids[task, row, : len(text)] = torch.tensor(text)
            ends[task, row] = len(text) - 1
    scores = reader.start(ids.to(device), ends.to(device))
    for count in range(1, new_tokens + 1):
        chosen = scores.argmax(-1)
        said = chosen.tolist()
        going = [(task, row) for task, row in going if said[task][row] != eos]
        for task, row in going:
            found[task][row].append(said[task][row])
        going = [(task, row) for task, row in going if lengths[task][row] + count < window]
        if not going or count == new_tokens:
            break
        scores = reader.grow(chosen)
    return found


def continuations(
    model: LanguageModel,
    weights: Weights,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    eos: int,
    new_tokens: int,
    stacked: bool,
) -> list[list[list[int]]]:
    """`greedy` with a cache, under `weights`; `prompts` [tasks][rows], one task unless the weights are stacked."""
    reader: Reader = CachedReader(model.network, weights, model.window, stacked=stacked)
    if "cache_params" in inspect.signature(model.network.forward).parameters:
        reader = StateReader(model.network, weights, stacked=stacked)
    device = next(iter(weights.values())).device
    return greedy(reader, prompts, eos=eos, new_tokens=new_tokens, window=model.window, device=device)
