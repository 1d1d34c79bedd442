"""What can stand in a window beside the last chunk: baselines of equal cost that remember without learning fast.

`longer` is a longer window, `anchor` the first chunk (as Streaming-T2V keeps one), `retrieval` the earlier chunk that
ended most like the last one did, `oracle` the one that ended where the new one shall: what a perfect memory is worth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_vgen.settings import Context


def beside(rule: Context, z: Tensor, places: Tensor, chunk: int) -> Tensor:
    """The chunk that is given besides chunk `chunk` - 1 when `chunk` is generated; that one again if there is none.

    Args:
        rule: not `none`.
        z: latents [episodes, chunks, frames, values, height, width], of which those before `chunk` are looked at.
        places: what each chunk ends on [episodes, chunks].
        chunk: from 1.

    Returns:
        [episodes, frames, values, height, width]
    """
    last = chunk - 1
    if last == 0:
        return z[:, 0]
    if rule is Context.longer:
        return z[:, last - 1]
    if rule is Context.anchor:
        return z[:, 0]
    earlier = torch.arange(last, device=z.device)
    if rule is Context.retrieval:
        ends = z[:, : last + 1, -1].flatten(2)
        which = (ends[:, :last] - ends[:, last:]).square().mean(-1).argmin(1)
    else:
        there = places[:, :last] == places[:, chunk, None]
        which = torch.where(there.any(1), torch.where(there, earlier, -1).amax(1), last)
    return z[torch.arange(len(z), device=z.device), which]
