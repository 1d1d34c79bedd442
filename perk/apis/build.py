"""API retrieval: one document is one segment, the gold one at a chosen position (paper, section 5.2)."""

import logging
import random
from collections.abc import Sequence

from common.data.dataroot import find
from common.data.splits import SPLITS, completed, digest
from common.errors import UserError
from perk.apis.config import Position
from perk.apis.documents import Api, Placed, Wanted, call_of, is_placed, read_placed, read_wanted
from perk.apis.generator import MOST, generate
from perk.config import DataConfig
from perk.metrics import exact_match
from perk.problems import Made, Problem, Question
from perk.segments import tell_of_long
from perk.tokens import Tokens

logger = logging.getLogger(__name__)
GENERATED_TOKENS = 64
"""No generated document is shorter."""


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits.

    Raises:
        UserError: a file is missing or malformed, or leaves a split without questions.
    """
    if config.made:
        return {split: _generated(config, tokens, split) for split in SPLITS}
    if is_placed(find(config.root, str(config.files.train), "generate APIs: data.files.train=null")):
        return _from_placed(config, tokens)
    return _from_wanted(config, tokens)


def _generated(config: DataConfig, tokens: Tokens, split: str) -> Made:
    count = min(MOST, config.length_of(split) // GENERATED_TOKENS + 2)

    def make(index: int) -> Problem:
        instruction, (gold, *others) = generate(config.seed, split, index, count)
        return _problem(config, tokens, split, index, instruction, gold, others)

    return Made(config.count[split], make)


def _problem(
    config: DataConfig, tokens: Tokens, split: str, index: int, instruction: str, gold: Api, others: Sequence[Api]
) -> Problem:
    """The gold document and as many others as the window holds, in their order, gold at its position.

    Raises:
        UserError: the window does not hold two documents.
    """
    name, length, position = f"{config.name}/{split}/{index}", config.length_of(split), config.apis.position_of(split)
    (mine, *rest) = tokens.counts([gold.document, *(other.document for other in others)])
    kept, total = [], mine
    for other, count in zip(others, rest, strict=True):
        if total + count > length:
            break
        kept.append(other)
        total += count
    else:
        if total + 2 * max(rest, default=length) < length:
            raise UserError(
                f"{name}: {len(others) + 1} API documents, all there are, fill only {total} of {length} tokens; lower "
                "data.length"
            )
    if not kept:
        raise UserError(f"{name}: {length} tokens do not hold two API documents; raise data.length")
    rng = random.Random(f"{config.seed}/{split}/{index}/position")
    last = len(kept)
    place = {Position.pre: 0, Position.mid: last // 2, Position.post: last, Position.rnd: rng.randint(0, last)}[
        position
    ]
    shown = [*kept[:place], gold, *kept[place:]]
    question = Question(f"{name}/0", instruction, (gold.call,), position.value, (), (place,))
    asked = () if config.made else (f"question:{digest(instruction)}",)  # generated ones are few, the APIs are not
    sources = (*asked, *(f"api:{digest(each.document)}" for each in shown))
    group = "".join(asked)
    return Problem(name, tuple(each.document for each in shown), (question,), sources, total, group=group)


def _from_wanted(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """Problems from APIBench: instructions and documents are cut by API, so no split shows another's documents."""
    read = {split: list(read_wanted(find(config.root, name, "generate APIs"))) for split, name in _named(config)}
    read = completed(read, lambda wanted: wanted.api.call, config.shares, config.seed, "APIs")
    return {split: _made(config, tokens, split, read[split]) for split in SPLITS}


def _made(config: DataConfig, tokens: Tokens, split: str, wanted: Sequence[Wanted]) -> Made:
    apis = list({each.api.call: each.api for each in wanted}.values())
    order = list(wanted)
    random.Random(f"{config.seed}/{split}/cases").shuffle(order)
    if len(apis) < 2:
        raise UserError(f"data.files: {len(apis)} APIs for the {split} split; give a larger file or other data.shares")

    def make(index: int) -> Problem:
        each = order[index % len(order)]
        rng = random.Random(f"{config.seed}/{split}/{index}/documents")
        others = [api for api in rng.sample(apis, len(apis)) if not exact_match(api.call, (each.api.call,))]
        question = f"Instruction: {each.instruction}"
        return _problem(config, tokens, split, index, question, each.api, others)

    return Made(config.count[split] or len(order), make)


def _from_placed(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """Published problems as they are: `data.length` and the position do not apply."""
    read = {split: list(read_placed(find(config.root, name, "generate APIs"))) for split, name in _named(config)}
    read = completed(read, lambda placed: placed.id, config.shares, config.seed, "problems")
    return {split: _as_they_are(config, tokens, split, read[split]) for split in SPLITS}


def _as_they_are(config: DataConfig, tokens: Tokens, split: str, placed: Sequence[Placed]) -> Made:
    shown = (text for each in placed for text in each.context)
    tell_of_long(f"data.files: {split}", shown, tokens, config.segment_tokens)

    def make(index: int) -> Problem:
        each = placed[index % len(placed)]
        name = f"{config.name}/{split}/{index}"
        gold = next(place for place, text in enumerate(each.context) if call_of(text) == each.answer)
        question = Question(f"{name}/0", each.question, (each.answer,), each.location, (), (gold,))
        sources = (f"question:{digest(each.question)}", *(f"api:{digest(text)}" for text in each.context))
        return Problem(name, each.context, (question,), sources, sum(tokens.counts(each.context)), group=sources[0])

    return Made(config.count[split] or len(placed), make)


def _named(config: DataConfig) -> list[tuple[str, str]]:
    files = {split: getattr(config.files, split) for split in SPLITS}
    return [(split, name) for split, name in files.items() if name is not None]
