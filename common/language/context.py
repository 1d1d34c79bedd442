"""A context that is read once: its keys and values are kept, and any number of questions stand behind it."""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights, call


class KeptContext:
    """In-context reading with a cache; the network runs under given weights and needs no gradient."""

    def __init__(self, network: nn.Module, weights: Weights, context: Tensor) -> None:
        """`context` int64 [tokens]."""
        self.network, self.weights, self.context = network, weights, context

    def read(self, room: int = 0) -> Any:
        """Keys and values of the context, with space for `room` more tokens: up to there nothing is copied when one is
        added, and beyond it a `ValueError` ends an answer. With 0 they are a plain `DynamicCache` of `transformers`.
        """
        from transformers import DynamicCache

        kept: Any = DynamicCache()
        if room:
            kept.layers = [_spacious()(room) for _ in range(int(self.network.config.num_hidden_layers))]  # type: ignore[union-attr,arg-type]
        self._forward(self.context[None], kept)
        return kept

    def one_by_one(self, kept: Any, questions: Tensor) -> Tensor:
        """Scores of what follows each of int64 [questions, length], [questions, vocabulary]; every question stands
        right behind the context, and `kept` is cut back to it.
        """
        found = []
        for question in questions:
            found.append(self._forward(question[None], kept))
            kept.crop(-len(question))
        return torch.cat(found)

    def at_once(self, kept: Any, questions: Tensor) -> Tensor:
        """The same with all questions as rows of one batch, each with its copy of the context; of a plain cache."""
        copies = copy.copy(kept)
        copies.layers = [copy.copy(layer) for layer in kept.layers]  # repeating makes new tensors, not new layers
        copies.batch_repeat_interleave(len(questions))
        return self._forward(questions, copies)

    def answer(self, kept: Any, question: Tensor, new_tokens: int) -> list[int]:
        """The most likely continuation of int64 [length] behind the context, whatever its tokens are; `kept` is cut
        back to the context.
        """
        said: list[int] = []
        ids = question[None]
        for _ in range(new_tokens):
            ids = self._forward(ids, kept).argmax(-1, keepdim=True)
            said.append(int(ids))
        kept.crop(-(len(question) + new_tokens - 1))
        return said

    def _forward(self, ids: Tensor, kept: Any) -> Tensor:
        """Scores of what comes next; keys and values of `ids` are added to `kept`."""
        with torch.no_grad(), needing(Need.first):
            output = call(
                self.network, self.weights, input_ids=ids, past_key_values=kept, use_cache=True, logits_to_keep=1
            )
        scores: Tensor = output.logits[:, -1]
        return scores


def cache_bytes(kept: Any) -> int:
    """Of the keys and values themselves, without unused space."""
    tensors = [tensor for layer in kept.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@cache
def _spacious() -> type:
    """A layer of a cache; made here, for `transformers` takes seconds to import."""
    from transformers.cache_utils import DynamicLayer

    class Spacious(DynamicLayer):  # type: ignore[misc]
        """Keys and values in buffers that are longer than what is in them; one row alone."""

        is_initialized: bool

        def __init__(self, room: int) -> None:
            super().__init__()
            self.room = room

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            """Puts the new ones behind those that are there, and returns all."""
            start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
            if not self.is_initialized:
                self.buffers = [_longer(states, self.room) for states in (key_states, value_states)]
                self.is_initialized = True
            if end > self.buffers[0].shape[-2]:
                raise ValueError(f"{end} tokens, there is space for {self.buffers[0].shape[-2]}; read with more room")
            for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[..., start:end, :] = states
            self.keys, self.values = (buffer[..., :end, :] for buffer in self.buffers)
            return self.keys, self.values

    return Spacious


def _longer(states: Tensor, room: int) -> Tensor:
    return states.new_empty((*states.shape[:-2], states.shape[-2] + room, states.shape[-1]))
