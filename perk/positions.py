"""Rotary positions stretched at test time alone: YaRN extends what was trained without it (paper, Table 1)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from common.errors import UserError
from common.language.model import LanguageModel
from perk.config import ModelConfig
from perk.templates import Templates


def while_training(config: ModelConfig) -> ModelConfig:
    """The settings that a model is trained with: with YaRN those of its own positions."""
    return replace(config, positions=0, yarn=0.0) if config.yarn else config


class Stretch:
    """A model's own positions, and those that `model.yarn` and `model.positions` ask for."""

    def __init__(self, model: LanguageModel, templates: Templates, config: ModelConfig) -> None:
        """`model` as `while_training` had it built; nothing is changed yet.

        Raises:
            UserError: the model has no rotary positions, or keeps them where they cannot be changed.
        """
        settings = copy.deepcopy(model.network.config)
        config.adjust(settings)
        self.model, self.templates = model, templates
        self.window = int(settings.max_position_embeddings)  # type: ignore[union-attr,arg-type]
        self.rotations = {
            name: type(module)(config=settings).to(next(module.buffers()).device)
            for name, module in model.network.named_modules()
            if hasattr(module, "rope_type")
        }
        if not self.rotations:
            raise UserError(
                f"model.yarn={config.yarn}: {type(model.network).__name__} has no module of rotary positions; use 0"
            )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Stretched inside the block, and as before after it."""
        before = {name: self.model.network.get_submodule(name) for name in self.rotations}
        window = self.model.window
        self._put(self.rotations, self.window)
        try:
            yield
        finally:
            self._put(before, window)

    def _put(self, rotations: dict[str, nn.Module], window: int) -> None:
        for name, module in rotations.items():
            self.model.network.set_submodule(name, module)
        self.model.window = self.templates.window = window
