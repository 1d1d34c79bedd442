"""What `python -m perk.model` prints: sizes, and the memory that one outer step needs."""

import logging
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode

from common.data.splits import SPLITS
from common.errors import UserError
from common.language import sizes
from common.language.counting import Shape, Step
from common.language.objective import Losses
from common.language.sizes import aligned, counted, fast_lines, memory_lines, model_lines
from common.language.sources import load_tokenizer
from common.language.token_losses import TokenLosses
from common.run.environment import pick_device
from perk import data
from perk.config import Learner, TrainConfig
from perk.objective import Weigher, WeightedLosses
from perk.templates import Templates

logger = logging.getLogger(__name__)
LOOKED_AT = 64
"""Problems; a generated set is made only so large."""
LABEL, QUESTION = 8, 160
"""Tokens before a segment, and of a question with its target, where there is no problem to look at."""


def shape_of(config: TrainConfig) -> Shape:
    """Sizes of the largest among the first training problems; by the settings where data or tokenizer are not there."""
    chosen = replace(config.data, cache=None)
    if chosen.made:
        chosen = replace(chosen, count={split: LOOKED_AT if split == "train" else 1 for split in SPLITS})
    try:
        problems = list(islice(iter(data.load(chosen)["train"]), LOOKED_AT))
        templates = Templates(config.data.templates, load_tokenizer(config.model), 10**9)
    except UserError as error:
        logger.info("sizes of problems are assumed: %s", error)
        count = max(1, chosen.length_of("train") // chosen.segment_tokens)
        source = "by data.length and data.segment, as the data are not there"
        return Shape(count, chosen.segment_tokens + LABEL, chosen.questions, QUESTION, source)
    read = [templates.segments(problem) for problem in problems]
    asked = [[templates.question(problem, q, config.method.target) for q in problem.questions] for problem in problems]
    return sizes.shape_of(read, asked)


def step_of(network: nn.Module, config: TrainConfig, shape: Shape) -> Step:
    """The outer step that the settings describe; the in-context learner reads the segments before every question, and
    training without the inner loop never reads them.

    Raises:
        UserError: the device is not there.
    """
    method, inner, device = config.method, config.inner, pick_device(config.runtime.device)
    autocast = config.runtime.autocast
    if method.learner is not Learner.perk:
        found = min(method.segments or shape.rows, shape.rows)
        return Step(network, replace(shape, rows=found), config.outer.batch_problems, None, device, autocast=autocast)
    if not method.meta:
        together = config.outer.batch_problems if inner.stack else 1
        return Step(network, replace(shape, rows=0), together, None, device, autocast=autocast)
    memorised: Losses | None = None
    others: list[Tensor] = []
    if method.token_weights:
        weigher = _weigher(network)
        losses = TokenLosses(network, autocast=autocast)
        memorised, others = WeightedLosses(losses, weigher), list(weigher.parameters())
    return Step(network, shape, config.outer.batch_problems, inner, device, memorised, others, autocast)


def report(network: nn.Module, config: TrainConfig, shape: Shape) -> str:
    """The text for the terminal; `network` may be without data (fake tensors).

    Raises:
        UserError: a pattern of inner.weights matches nothing, or the device is not there.
    """
    lines, method = model_lines(network, config.network), config.method
    if method.learner is Learner.shortcuts:
        return aligned([*lines, ("memory", f"method={method.name} trains no network")])
    step = step_of(network, config, shape)
    if method.learner is Learner.perk:
        lines += fast_lines(network, replace(config.inner, learned=config.inner.learned and method.meta))
    if step.others:
        lines.append(("token weights", f"{counted(step.others)}: by a small network, which the outer loop trains"))
    return aligned([*lines, *memory_lines(step, config.runtime.dtype.name, "segments")])


def _weigher(network: nn.Module) -> Weigher:
    """One that fits `network`, without data where that has none."""
    head: Tensor = network.get_output_embeddings().weight  # type: ignore[operator]
    weigher = Weigher(head.shape[1]).to(torch.promote_types(head.dtype, torch.float32))
    if (mode := detect_fake_mode(list(network.parameters()))) is not None:
        for module in weigher.modules():
            for name, weight in module.named_parameters(recurse=False):
                module.register_parameter(name, nn.Parameter(mode.from_tensor(weight.detach())))
    return weigher
