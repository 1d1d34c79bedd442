"""From a configuration to the objects that train and answer."""

import logging
from dataclasses import dataclass
from itertools import islice

import torch

from common.engine.rates import LearnedRates, make_rates
from common.language import model as models
from common.language.adapter import fast_weights
from common.language.sources import load_tokenizer
from common.run.state import Stateful
from perk.config import Learner, TrainConfig
from perk.data import Splits
from perk.methods import InContext, Perk
from perk.objective import Weigher
from perk.positions import Stretch, while_training
from perk.templates import Templates

logger = logging.getLogger(__name__)
LOOKED_AT = 256
"""Training problems by which sizes are judged."""


@dataclass
class Parts:
    """What a run is made of."""

    model: models.LanguageModel
    rates: LearnedRates | None
    """Inner learning rates; None for a learner without an inner loop."""
    weigher: Weigher | None
    templates: Templates
    learner: Perk | InContext
    stretch: Stretch | None = None
    """Positions at test time; None where they are those of training."""

    @property
    def tracked(self) -> dict[str, Stateful]:
        """What a checkpoint keeps of it, by name."""
        there: dict[str, Stateful | None] = {"model": self.model.tracked, "rates": self.rates, "weigher": self.weigher}
        return {name: part for name, part in there.items() if part is not None}


def build(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Parts:
    """Load the model and put the method around it.

    Raises:
        UserError: weights or tokenizer are missing, or a template or pattern does not fit.
    """
    from transformers.utils import logging as bars

    bars.disable_progress_bar()  # they would cut the run's own in two
    tokenizer = load_tokenizer(config.model)
    network, autocast = while_training(config.network), config.runtime.autocast
    model = models.load(network, len(tokenizer), device=device, dtype=dtype, autocast=autocast)
    templates = Templates(config.data.templates, tokenizer, model.window)
    if config.method.learner is not Learner.perk:
        stretch = Stretch(model, templates, config.model) if config.model.yarn else None
        return Parts(model, None, None, templates, InContext(model, templates, config.method), stretch)
    # rates and weigher stay float32 beside bfloat16 weights: their steps are smaller than its spacing
    wide = torch.promote_types(dtype, torch.float32)
    rates = make_rates(config.inner, list(fast_weights(model.network, config.inner.weights))).to(device, wide)
    weigher = None
    if config.method.token_weights:
        weigher = Weigher(model.width).to(device, wide)
    if not config.method.meta:
        rates.requires_grad_(False)  # nothing would reach them
    elif config.inner.unroll.second_order:
        models.check_second_derivative(model)
    learner = Perk(
        model, rates, templates, config.inner, config.method, config.evaluation, weigher, capture=config.runtime.capture
    )
    return Parts(model, rates, weigher, templates, learner)


def look(parts: Parts, splits: Splits, config: TrainConfig) -> None:
    """Go through the first training problems: report sizes, and settle what is left to the work's size.

    Raises:
        UserError: a row does not fit the model.
    """
    first = list(islice(iter(splits["train"]), LOOKED_AT))
    if isinstance(parts.learner, Perk):
        parts.learner.plan(first, config.outer.batch_problems)
    longest = max(len(row.ids) for problem in first for row in parts.learner.rows(problem))
    sizes = ", ".join(f"{len(problems)} {split}" for split, problems in splits.items())
    window = f"at most {parts.model.window}" if parts.model.window < 10**9 else "any number of"
    logger.info("%s problems; the longest row has %d of %s tokens", sizes, longest, window)
