"""Greedy decoding for ragged prompts, with one set of weights or one a task."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Forward = Callable[[Tensor, int], Tensor]
"""int64 ids [tasks, rows, length], keep -> next-token logits of the last `keep` places [tasks, rows, keep, words]."""


@torch.no_grad()
def greedy(
    forward: Forward,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    eos: int,
    new_tokens: int,
    window: int,
    device: torch.device,
) -> list[list[list[int]]]:
    """The most likely continuation of every prompt, cut before its end-of-text token.

    Rows are padded on the right and continued each at its own end: no attention mask is needed, and a row gets the
    tokens it would get alone. Finished rows are no longer computed.

    Args:
        forward: the model. Every call has all tasks, but only as many rows as the task with most unfinished ones.
        prompts: [tasks][rows][tokens]; tasks may have different numbers of rows.
        eos: end-of-text token, also used as padding.
        new_tokens: at most so many tokens are added, and never beyond `window`.
        window: the model's context in tokens.
        device: where the model is.

    Returns:
        [tasks][rows][new tokens].
    """
    texts = [[list(row) for row in rows] for rows in prompts]
    unfinished = [[text for text in rows if len(text) < window] for rows in texts]
    for _ in range(new_tokens):
        if not any(unfinished):
            break
        lengths = [len(text) for rows in unfinished for text in rows]
        ids = torch.full((len(unfinished), max(map(len, unfinished)), max(lengths)), eos)
        ends = torch.full(ids.shape[:2], min(lengths) - 1)
        for task, rows in enumerate(unfinished):
            for row, text in enumerate(rows):
                ids[task, row, : len(text)] = torch.tensor(text)
                ends[task, row] = len(text) - 1
        keep = max(lengths) - min(lengths) + 1
        scores = forward(ids.to(device), keep)
        places = (ends - (min(lengths) - 1)).to(device)[..., None, None].expand(*ends.shape, 1, scores.shape[-1])
        chosen = scores.gather(-2, places).squeeze(-2).argmax(-1).tolist()
        for task, rows in enumerate(unfinished):
            going = []
            for text, token in zip(rows, chosen[task], strict=False):
                if token != eos:
                    text.append(token)
                    going.append(text)
            unfinished[task] = [text for text in going if len(text) < window]
    return [
        [text[len(prompt) :] for text, prompt in zip(done, asked, strict=True)]
        for done, asked in zip(texts, prompts, strict=True)
    ]
