"""Greedy decoding for ragged prompts, with one set of weights or one a task."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]
"""int64 ids [..., rows, length] -> logits [..., rows, length, vocabulary]."""


@torch.no_grad()
def greedy(
    forward: Forward, prompts: Sequence[Sequence[Sequence[int]]], *, eos: int, new_tokens: int, window: int, device: torch.device
) -> list[list[list[int]]]:
    """The most likely continuation of every prompt, cut before its end-of-text token.

    Rows are padded on the right and continued each at its own end, so that no attention mask is needed and a row gets
    the tokens it would get alone.

    Args:
        forward: the model; called with [tasks, rows, length].
        prompts: [tasks][rows][tokens]; tasks may have different numbers of rows.
        eos: end-of-text token, also used as padding.
        new_tokens: at most so many tokens are added, and never beyond `window`.
        window: the model's context in tokens.
        device: where the model is.

    Returns:
        [tasks][rows][new tokens].
    """
    most = max(len(rows) for rows in prompts)
    lengths = torch.tensor(
        [[len(row) for row in rows] + [1] * (most - len(rows)) for rows in prompts], device=device
    )  # [tasks, rows]
    longest = int(lengths.max())
    room = min(longest + new_tokens, window)
    ids = torch.full((len(prompts), most, room), eos, device=device)
    for t, rows in enumerate(prompts):
        for r, row in enumerate(rows):
            ids[t, r, : len(row)] = torch.tensor(row, device=device)
    begins = lengths.clone()
    done = torch.tensor([[False] * len(rows) + [True] * (most - len(rows)) for rows in prompts], device=device)
    for _ in range(new_tokens):
        done |= (lengths >= room) | (lengths - begins >= new_tokens)
        if bool(done.all()):
            break
        scores = forward(ids[..., : int(lengths.max())])
        last = (lengths - 1)[..., None, None].expand(*lengths.shape, 1, scores.shape[-1])
        token = scores.gather(-2, last).squeeze(-2).argmax(-1)  # [tasks, rows]
        done |= token == eos
        place = lengths.clamp(max=room - 1)[..., None]
        ids.scatter_(-1, place, torch.where(done, ids.gather(-1, place)[..., 0], token)[..., None])
        lengths += (~done).long()
    return [
        [ids[t, r, begins[t, r] : lengths[t, r]].tolist() for r in range(len(rows))] for t, rows in enumerate(prompts)
    ]
