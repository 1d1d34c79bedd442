"""The attention of `common.engine.twice` in models of transformers.

`register()`, then build the model with `attn_implementation=ATTENTION`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from common.engine.twice.attention import additive, attend

ATTENTION = "twice"
"""`attn_implementation=` of models with this attention."""
UNKNOWN = ("softcap", "s_aux", "position_bias", "cu_seq_lens_q")
"""What some models pass along and it does not do; the last are ends of rows laid end to end."""


def register() -> None:
    """Make `attn_implementation=ATTENTION` known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, _mask)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What a model of transformers calls in each attention layer.

    Args:
        module: the attention layer; asked for `is_causal` unless the call says it.
        query: as in `attend`, and so are the others.
        key: [rows, key heads, keys, dim].
        value: [rows, key heads, keys, value dim].
        attention_mask: it replaces `is_causal`.
        scaling: of the scores.
        dropout: probability of dropping a weight.
        is_causal: a query sees no later key.
        kwargs: what else the model passes along.

    Returns:
        Output [rows, queries, heads, value dim]; weights [rows, heads, queries, keys] if asked for.

    Raises:
        ValueError: the layer wants what this attention does not do, or there are more queries than keys.
    """
    if unknown := [name for name in UNKNOWN if kwargs.get(name) is not None]:
        raise ValueError(f"attention '{ATTENTION}' has no {', '.join(unknown)}: use attn_implementation='eager'")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    output, weights = attend(
        query,
        key,
        value,
        attention_mask,
        causal=causal,
        scaling=scaling,
        dropout=dropout,
        weights=_wants_weights(kwargs),
    )
    return output.transpose(1, 2), weights


def _mask(*, q_length: int, kv_length: int, allow_is_causal_skip: bool, dtype: torch.dtype, **kwargs: Any) -> Any:
    """The mask of a forward pass: None where `is_causal` or nothing says it all, else additive."""
    from transformers.masking_utils import sdpa_mask

    # transformers also skips the mask of an empty static cache, where causal means aligned at the start
    skip = allow_is_causal_skip and q_length in (1, kv_length)
    seen = sdpa_mask(q_length=q_length, kv_length=kv_length, allow_is_causal_skip=skip, dtype=dtype, **kwargs)
    return seen if seen is None else additive(seen, dtype)


def _wants_weights(kwargs: dict[str, Any]) -> bool:
    from transformers.utils.output_capturing import _active_collector  # most models drop the flag output_attentions

    return bool(kwargs.get("output_attentions")) or any("attentions" in name for name in _active_collector.get() or ())
