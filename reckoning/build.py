"""From a configuration to the objects that train and answer."""

import logging
from dataclasses import dataclass

import torch

from common.engine.rates import LearnedRates, make_rates
from common.language import model as models
from common.language.adapter import fast_weights
from common.language.sources import load_tokenizer
from common.run.state import Stateful
from reckoning.config import SPLITS, Learner, TrainConfig
from reckoning.data import Splits
from reckoning.methods import GivenKnowledge, InContext, Reckoning
from reckoning.templates import Templates

logger = logging.getLogger(__name__)


@dataclass
class Parts:
    """What a run is made of."""

    model: models.LanguageModel
    rates: LearnedRates | None
    """Inner learning rates; None for a learner without an inner loop."""
    templates: Templates
    learner: Reckoning | InContext
    label_tokens: int
    """New tokens that show any label of train and dev."""

    @property
    def tracked(self) -> dict[str, Stateful]:
        """What a checkpoint keeps of it, by name."""
        model: dict[str, Stateful] = {"model": self.model.tracked}
        return model if self.rates is None else model | {"rates": self.rates}


def build(config: TrainConfig, splits: Splits, device: torch.device, dtype: torch.dtype) -> Parts:
    """Load the model, put the method around it, and read every problem once.

    Raises:
        UserError: weights or tokenizer are missing, a template or pattern does not fit, or a row is too long.
    """
    from transformers.utils import logging as bars

    bars.disable_progress_bar()  # they would cut the run's own in two
    tokenizer = load_tokenizer(config.model)
    model = models.load(config.model, len(tokenizer), device=device, dtype=dtype, autocast=config.runtime.autocast)
    templates = Templates(config.data.templates, config.data.labels or {}, tokenizer, model.window)
    knowledge = GivenKnowledge(config.method.knowledge, splits, config.data.seed)
    rates: LearnedRates | None = None
    learner: Reckoning | InContext
    if config.method.learner is Learner.reckoning:
        # rates stay float32 beside bfloat16 weights: their steps are smaller than its spacing
        rates = make_rates(config.inner, list(fast_weights(model.network, config.inner.weights)))
        rates = rates.to(device, torch.promote_types(dtype, torch.float32))
        learner = Reckoning(
            model, rates, templates, config.inner, config.method, knowledge, config.evaluation.inner_steps,
            capture=config.runtime.capture,
        )  # fmt: skip
        if not config.method.meta:
            rates.requires_grad_(False)  # nothing would reach them
        elif config.inner.unroll.second_order:
            models.check_second_derivative(model)
        learner.plan(splits["train"], config.outer.batch_problems)
    else:
        learner = InContext(model, templates, config.method, knowledge)
    longest = max(len(row.ids) for split in SPLITS for problem in splits[split] for row in learner.rows(problem))
    sizes = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    logger.info("%s problems; the longest row has %d of at most %d tokens", sizes, longest, model.window)
    labelled = [question for split in ("train", "dev") for problem in splits[split] for question in problem.questions]
    return Parts(model, rates, templates, learner, templates.label_tokens(labelled))
