"""How large the problems of a configuration are, in tokens."""

import logging
from dataclasses import replace

from common.errors import UserError
from common.language.sizes import Shape
from common.language.sources import load_tokenizer
from reckoning import data
from reckoning.config import Target, TrainConfig
from reckoning.templates import Templates

logger = logging.getLogger(__name__)
LOOKED_AT = 64
"""Problems; a generated set is made only so large."""
ASSUMED = Shape(20, 24, 1, 160, "assumed, as the data are not there")


def shape_of(config: TrainConfig) -> Shape:
    """Sizes of the largest among the first training problems; assumed ones where data or tokenizer are not there."""
    chosen = config.data
    if chosen.format.made:
        chosen = replace(chosen, theories={"train": LOOKED_AT, "dev": 1, "test": 1}, cache=None)
    try:
        problems = data.load(chosen)["train"][:LOOKED_AT]
        templates = Templates(config.data.templates, config.data.labels or {}, load_tokenizer(config.model), 10**9)
    except UserError as error:
        logger.info("sizes of problems are assumed: %s", error)
        return ASSUMED
    target = Target.single if config.method.target is Target.sum else config.method.target
    facts = [[templates.fact(i, fact) for i, fact in enumerate(problem.facts)] for problem in problems]
    asked = [[templates.question(problem, q, target) for q in problem.questions] for problem in problems]
    return Shape(
        max(len(rows) for rows in facts),
        max(len(row.ids) for rows in facts for row in rows),
        max(len(rows) for rows in asked),
        max(len(row.ids) for rows in asked for row in rows),
        f"the largest of {len(problems)} problems",
    )
