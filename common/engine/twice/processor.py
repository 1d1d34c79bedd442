"""The attention of `common.engine.twice.attention` in networks of diffusers, by their protocol of processors.

diffusers itself is not imported: a processor is what its attention layers call with themselves.
"""

from typing import Any, TypeVar

from torch import Tensor, nn

from common.engine.twice.attention import attend
from common.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


class TwiceAttnProcessor:
    """What diffusers' `AttnProcessor2_0` computes, with a second derivative."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention of every row to itself, or to `encoder_hidden_states`.

        Args:
            attn: the attention layer.
            hidden_states: [rows, queries, channels], or images [rows, channels, height, width].
            encoder_hidden_states: [rows, keys, key channels].
            attention_mask: added to the scores, [rows or rows * heads, 1 or queries, keys].
            temb: what `attn.spatial_norm` is given besides.

        Returns:
            The shape of `hidden_states`.
        """
        given = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if given.dim() == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states
        if encoder_hidden_states is not None:
            context = encoder_hidden_states
            if attn.norm_cross:
                context = attn.norm_encoder_hidden_states(context)
        output = self._attended(attn, hidden_states, context, attention_mask)
        for layer in attn.to_out:  # a product, and dropout
            output = layer(output)
        if given.dim() == 4:
            output = output.transpose(1, 2).reshape(given.shape)
        if attn.residual_connection:
            output = output + given
        scaled: Tensor = output / attn.rescale_output_factor
        return scaled

    @staticmethod
    def _attended(attn: Any, states: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """[rows, queries, channels] and [rows, keys, key channels] -> [rows, queries, heads * dim]."""
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, states), (attn.to_k, context), (attn.to_v, context))
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if mask is not None:
            rows, keys = context.shape[:2]
            mask = attn.prepare_attention_mask(mask, keys, rows).unflatten(0, (rows, attn.heads))
        output, _ = attend(query, key, value, mask, scaling=attn.scale)
        return output.transpose(1, 2).flatten(2)


PLAIN = ("AttnProcessor", "AttnProcessor2_0", TwiceAttnProcessor.__name__)
"""Processors of the same function."""


def make_attention_twice(network: Network) -> Network:
    """Let every attention layer of a network of diffusers follow `common.engine.twice.policy`; returns it.

    Changes `network` in place; parameters and their names stay as they are, the function to rounding.

    Raises:
        UserError: `network` takes no processors, or a layer's attention is another function; nothing has changed then.
    """
    set_processor = getattr(network, "set_attn_processor", None)
    if set_processor is None:
        raise UserError(f"{type(network).__name__} takes no attention processors; give a network of diffusers")
    for name, processor in network.attn_processors.items():  # type: ignore[operator,union-attr]
        if (kind := type(processor).__name__) not in PLAIN:
            raise UserError(
                f"{name.removesuffix('.processor')} attends by {kind}, which has no second derivative here; "
                "use a network with plain attention"
            )
    set_processor(TwiceAttnProcessor())
    return network
