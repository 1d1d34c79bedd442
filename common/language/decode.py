"""Greedy decoding for ragged prompts, with one set of weights or one a task; what was read is kept."""

from collections.abc import Sequence

import torch

from common.engine.weights import Weights
from common.language.model import LanguageModel
from common.language.readers import CachedReader, Reader, StateReader, WholeReader, has_state


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
    """`greedy` under `weights`, from what the network keeps of a row if it can; `prompts` [tasks][rows], one task
    unless the weights are stacked.
    """
    reader: Reader
    if model.continues < max((len(row) for rows in prompts for row in rows), default=0) + new_tokens:
        reader = WholeReader(model.network, weights, model.window, stacked=stacked)
    elif has_state(model.network):
        reader = StateReader(model.network, weights, stacked=stacked)
    else:
        reader = CachedReader(model.network, weights, model.window, stacked=stacked)
    device = next(iter(weights.values())).device
    return greedy(reader, prompts, eos=eos, new_tokens=new_tokens, window=model.window, device=device)
