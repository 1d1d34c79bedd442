"""What a network does, found out by a handful of tokens when it is loaded: whether it sees the future, and whether it
can go on from what it keeps of a row.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from common.language.readers import CachedReader, StateReader, WholeReader, has_state
from common.language.sources import first_line

logger = logging.getLogger(__name__)
LENGTH = 8
"""Tokens of a probe's row."""
ROUNDED = 8.0
"""Times the precision and the largest number: up to here a difference may be rounding, as of experts in groups."""
CACHED = 100.0
"""The same for a row that is read in two parts, whose sums are taken in another order."""
NOT_FINITE = "its scores are not finite: weights are damaged, or too large for their type"
LOCAL = ("sliding_window", "attention_chunk_size", "attention_window_size", "local_attention")
"""Settings of how far back a layer looks, which a mask of our own does not say."""


def failure(network: nn.Module) -> str | None:
    """Why `network` cannot be trained on next tokens, None if it can: a change of a token, or of the padding behind it,
    changes nothing before it, and nothing in another row.

    The network, its mode and all random states are as before.
    """
    with _quietly(network):
        try:
            return _sees(network)
        except Exception as error:  # whatever a library's model raises
            return f"it cannot read a row of {LENGTH} tokens ({type(error).__name__}: {first_line(error)})"


def _sees(network: nn.Module) -> str | None:
    ids = _rows(network)
    before = _scores(network, ids)
    if not before.isfinite().all():
        return NOT_FINITE
    length, middle = ids.shape[1], ids.shape[1] // 2
    for start, stop in ((length - 1, length), (middle, middle + 1), (middle, length)):
        other = ids.clone()
        other[0, start:stop] = _padding(network, ids[0, 0]) if stop - start > 1 else ids[1, start]
        moved = (_scores(network, other) - before).abs()
        moved[0, start:] = 0
        most = moved.max()
        if most > 0 and (most > _rounding(before, ROUNDED) or _depends(network, ids, start)):
            changed = f"token {stop}" if stop - start == 1 else f"tokens {start + 1} to {stop}"
            return f"it sees the future: changing {changed} of {length} moves earlier scores by {most.item():.2g}"
    return None


def continues(network: nn.Module, window: int) -> int:
    """The longest rows, in tokens, to which `network` gives the scores of reading them whole if it reads them in parts
    (`CachedReader`), whatever their lengths: 0 if it does not, `sys.maxsize` without a limit.
    """
    config: Any = network.config
    local = [getattr(config.get_text_config(decoder=True), key, None) for key in LOCAL]
    longest = min((int(each) for each in local if each), default=sys.maxsize)
    return longest if _reads_in_parts(network, window) else 0


def _reads_in_parts(network: nn.Module, window: int) -> bool:
    weights = {name: w.detach() for name, w in network.named_parameters()}
    with _quietly(network):
        ids = _rows(network)[None, :, :-1]
        ends = torch.tensor([[ids.shape[-1] - 1, ids.shape[-1] // 2]], device=ids.device)
        kept = (
            StateReader(network, weights, stacked=False)
            if has_state(network)
            else CachedReader(network, weights, window, stacked=False)
        )
        whole = WholeReader(network, weights, window, stacked=False)
        try:
            pairs = [(reader.start(ids, ends), reader.grow(ids[..., 1])) for reader in (kept, whole)]
        except Exception as error:
            logger.debug("no reading in parts: %s", error)
            return False
        return all(
            bool((found - wanted).abs().max() <= _rounding(wanted, CACHED))
            for found, wanted in zip(*pairs, strict=True)
        )


def _rows(network: Any) -> Tensor:
    """int64 [2, at most LENGTH], no special token as far as the vocabulary allows it; the rows differ everywhere."""
    config = network.config.get_text_config(decoder=True)
    size, window = int(config.vocab_size), getattr(config, "max_position_embeddings", None) or LENGTH
    named = (getattr(config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id"))
    special = {x for value in named for x in (value if isinstance(value, list) else [value])}
    usable = [token for token in range(min(size, 64)) if token not in special] or [0]
    length = max(2, min(LENGTH, int(window)))
    row = torch.arange(length, device=next(network.parameters()).device)
    return torch.tensor(usable, device=row.device)[torch.stack([row, row + 1 + length % 2]) % len(usable)]


def _padding(network: Any, otherwise: Tensor) -> Tensor:
    """What a row is filled up with, as far as the network's configuration knows."""
    config = network.config.get_text_config(decoder=True)
    for key in ("pad_token_id", "eos_token_id"):
        if isinstance(token := getattr(config, key, None), int) and 0 <= token < config.vocab_size:
            return torch.full_like(otherwise, token)
    return otherwise


def _scores(network: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(input_ids=ids, use_cache=False).logits
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _rounding(scores: Tensor, times: float) -> Tensor:
    return times * torch.finfo(scores.dtype).eps * scores.abs().max()


def _depends(network: Any, ids: Tensor, place: int) -> bool:
    """Whether scores before `place` of the first row have a derivative by what stands there: one that is not exactly 0
    is no rounding.
    """
    given: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        given.append(output.detach().requires_grad_())
        return given[-1]

    handle = network.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            earlier = network(input_ids=ids, use_cache=False).logits[0, :place]
            (slope,) = torch.autograd.grad(earlier.float().square().sum(), given[:1])
    finally:
        handle.remove()
    return bool(slope[0, place:].ne(0).any())


@contextmanager
def _quietly(network: nn.Module) -> Iterator[None]:
    """Evaluating; every module's mode and the random states are put back."""
    modes = {module: module.training for module in network.modules()}
    device = next(network.parameters()).device
    network.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
