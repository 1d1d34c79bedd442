"""From a configuration to the objects that train and answer."""

from dataclasses import dataclass

import torch

from common.rates import LearnedRates, make_rates
from common.weights import select
from reckoning import model as models
from reckoning.config import Learner, TrainConfig
from reckoning.data import Splits
from reckoning.methods import GivenKnowledge, InContext, Reckoning
from reckoning.sources import load_tokenizer
from reckoning.templates import Templates


@dataclass
class Parts:
    """What a run is made of."""

    model: models.LanguageModel
    rates: LearnedRates
    templates: Templates
    learner: Reckoning | InContext


def build(config: TrainConfig, splits: Splits, device: torch.device, dtype: torch.dtype) -> Parts:
    """Load the model and put the method around it.

    Raises:
        UserError: weights or tokenizer are missing, or a template or pattern does not fit.
    """
    tokenizer = load_tokenizer(config.model)
    model = models.load(config.model, len(tokenizer), device=device, dtype=dtype)
    templates = Templates(config.data.templates, config.data.labels or {}, tokenizer, model.window)
    rates = make_rates(config.inner, list(select(model.network, config.inner.weights))).to(device, dtype)
    pool = [problem for problems in splits.values() for problem in problems]
    knowledge = GivenKnowledge(config.method.knowledge, pool, config.data.seed)
    learner: Reckoning | InContext
    if config.method.learner is Learner.reckoning:
        learner = Reckoning(
            model, rates, templates, config.inner, config.method, knowledge, config.evaluation.inner_steps
        )
    else:
        rates.requires_grad_(False)
        learner = InContext(model, templates, config.method, knowledge)
    return Parts(model, rates, templates, learner)
