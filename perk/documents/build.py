"""Questions over passages: gold ones among distractors, at random places, until the window is full (paper, A.3)."""

import logging
import random
from collections import Counter
from collections.abc import Sequence

from common.data.dataroot import find
from common.data.splits import BUCKETS, SPLITS, bucket, cut, digest, shares_of
from common.errors import UserError
from perk.config import DataConfig
from perk.documents.config import Distractors, Kind
from perk.documents.generator import generate
from perk.documents.items import Item, Passage, holds, read_hotpotqa, read_pool, read_triviaqa
from perk.problems import Made, Problem, Question
from perk.retrieval import Index
from perk.tokens import Tokens

logger = logging.getLogger(__name__)
GENERATED_TOKENS = 32
"""No generated passage is shorter, so a context never has more than length / GENERATED_TOKENS of them."""
STUB = 12
"""A last distractor that would be cut to fewer tokens is left out."""


class Pool:
    """Passages of one split that may stand beside any of its questions."""

    def __init__(self, passages: Sequence[Passage], how: Distractors) -> None:
        self.passages = list(passages)
        self._index = (
            Index([each.line for each in self.passages]) if how is Distractors.bm25 and self.passages else None
        )

    def candidates(self, question: str, rng: random.Random, most: int) -> list[Passage]:
        """At most `most` passages in the order in which they should be used."""
        if self._index is None:
            return rng.sample(self.passages, min(most, len(self.passages)))
        return [self.passages[place] for place in self._index.best(question, most)]


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits.

    Raises:
        UserError: a file is missing or malformed, or leaves a split without questions.
    """
    if config.made:
        return {split: _generated(config, tokens, split) for split in SPLITS}
    items = _items(config)
    pools = _pools(config, items)
    return {split: _split(config, tokens, split, items[split], pools[split]) for split in SPLITS}


def item_of(config: DataConfig, split: str, index: int) -> Item:
    """The generated question number `index` of a split."""
    passages = config.length_of(split) // GENERATED_TOKENS
    return generate(config.documents.kind, config.seed, split, index, passages)


def _generated(config: DataConfig, tokens: Tokens, split: str) -> Made:
    def make(index: int) -> Problem:
        item = item_of(config, split, index)
        return _problem(config, tokens, split, index, item, item.others)

    return Made(config.count[split], make)


def _split(config: DataConfig, tokens: Tokens, split: str, items: Sequence[Item], pool: Pool) -> Made:
    if not items:
        raise UserError(f"data.files: no question with a gold passage is left for the {split} split")
    count = config.count[split] or len(items)
    if count > len(items):
        logger.info("%s: %d questions for %d problems: asked again in another order", split, len(items), count)
    # a distractor of fewer tokens is rare, and then some more are left out below
    most = max(64, config.length_of(split) // STUB)

    def make(index: int) -> Problem:
        item = items[index % len(items)]
        rng = random.Random(f"{config.seed}/{split}/{index}/distractors")
        return _problem(config, tokens, split, index, item, pool.candidates(item.question, rng, most))

    return Made(count, make)


def _problem(
    config: DataConfig, tokens: Tokens, split: str, index: int, item: Item, candidates: Sequence[Passage]
) -> Problem:
    """The item's gold passages and as many candidates as fit, shuffled; the last is cut at a word to fill it."""
    name, length = f"{config.name}/{split}/{index}", config.length_of(split)
    lines = [passage.line for passage in item.gold]
    left = length - sum(tokens.counts(lines))
    if left < 0:
        raise UserError(
            f"{name}: the gold passages of question {item.id} take {length - left} of {length} tokens; raise "
            "data.length, or lower data.documents.most_gold"
        )
    titles = {passage.title for passage in item.gold}
    used = list(item.gold)
    for passage in candidates:
        if left <= STUB:
            break
        if passage.title in titles or holds(passage.line, item.answers):
            continue
        (count,) = tokens.counts([passage.line])
        lines.append(passage.line if count <= left else _shortened(passage.line, tokens, left))
        used.append(passage)
        left -= min(count, left)
    if left > length // 100 + STUB:
        raise UserError(
            f"{name}: {len(used) - len(item.gold)} distractors fill only {length - left} of {length} tokens; give more "
            "passages with data.documents.pool, or lower data.length"
        )
    order = list(range(len(lines)))
    random.Random(f"{config.seed}/{split}/{index}/order").shuffle(order)
    segments = tuple(lines[place] for place in order)
    gold = tuple(order.index(place) for place in range(len(item.gold)))
    question = Question(f"{name}/{item.id}", item.question, item.answers, item.kind, item.support, gold)
    sources = (f"question:{digest(item.question)}", *(f"passage:{digest(passage.line)}" for passage in used))
    group = "" if config.made else sources[0]
    return Problem(name, segments, (question,), sources, sum(tokens.counts(segments)), group=group)


def _shortened(line: str, tokens: Tokens, limit: int) -> str:
    words = line.split(" ")
    counts = tokens.counts([f" {word}" for word in words])
    total, kept = 0, 0
    while total + counts[kept] <= limit:
        total, kept = total + counts[kept], kept + 1
    return " ".join(words[:kept])


def _items(config: DataConfig) -> dict[str, list[Item]]:
    read: dict[str, list[Item]] = {}
    for split in SPLITS:
        if (name := getattr(config.files, split)) is not None:
            read[split] = _read(config, name)
    if missing := [split for split in SPLITS if split not in read]:
        whole = read["train"]
        group_of = _groups(whole)
        split_of = cut(group_of.values(), shares_of(config.shares, missing), config.seed, "groups of questions")
        largest, size = Counter(group_of.values()).most_common(1)[0]
        if 2 * size > len(whole):  # shares count groups; most of the questions hang together in a large file
            split_of[largest] = "train"
        read |= {split: [i for i in whole if split_of[group_of[i.id]] == split] for split in ("train", *missing)}
    kept = _without_shared(read)
    for split, items in kept.items():
        random.Random(f"{config.seed}/{split}/items").shuffle(items)
    return kept


def _without_shared(read: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Files of their own may share paragraphs: a question leaves if a gold title of it, or its text, is in a later
    split (test comes last)."""
    kept: dict[str, list[Item]] = {}
    seen: set[str] = set()
    for split in reversed(SPLITS):
        keys = {item.id: {item.question, *(passage.title for passage in item.gold)} for item in read[split]}
        kept[split] = [item for item in read[split] if not keys[item.id] & seen]
        if dropped := len(read[split]) - len(kept[split]):
            logger.info("%s: %d questions left out whose gold passages another split has too", split, dropped)
        seen.update(*(keys[item.id] for item in kept[split]))
    return {split: kept[split] for split in SPLITS}


def _read(config: DataConfig, name: str) -> list[Item]:
    mine, remedy = config.documents, "generate questions: data.files.train=null"
    path = find(config.root, name, remedy)
    if mine.kind is Kind.hotpotqa:
        return list(read_hotpotqa(path))
    evidence = find(config.root, mine.evidence, remedy) if mine.evidence else None
    return list(read_triviaqa(path, evidence, mine.most_gold))


def _groups(items: Sequence[Item]) -> dict[str, str]:
    """Question id -> key of its group: questions whose gold passages share a title stay together."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for item in items:
        for passage in item.gold:
            above[top(f"title {passage.title}")] = top(f"question {item.id}")
    return {item.id: top(f"question {item.id}") for item in items}


def _pools(config: DataConfig, items: dict[str, list[Item]]) -> dict[str, Pool]:
    """Distractors of each split: of all passages that are not gold, those whose title's digest falls to the split.

    A title that is gold in one split is no distractor of another.
    """
    titles = {split: {passage.title for item in told for passage in item.gold} for split, told in items.items()}
    found = dict.fromkeys(passage for told in items.values() for item in told for passage in item.others)
    if config.documents.pool is not None:
        path = find(config.root, config.documents.pool, "do without: data.documents.pool=null")
        found |= dict.fromkeys(read_pool(path))
    owner = {place: split for split, places in BUCKETS.items() for place in places}
    pools: dict[str, list[Passage]] = {split: [] for split in SPLITS}
    for passage in found:
        split = owner[bucket(passage.title)]
        if not any(passage.title in titles[other] for other in SPLITS if other != split):
            pools[split].append(passage)
    return {split: Pool(passages, config.documents.distractors) for split, passages in pools.items()}
