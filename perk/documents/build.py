"""Questions over passages: gold ones among distractors, at random places, until the window is full (paper, A.3)."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from common.data.dataroot import find
from common.data.splits import BUCKETS, SPLITS, bucket, cut, digest, shares_of
from common.errors import UserError
from common.language.normal import normalise
from perk.config import DataConfig
from perk.documents.config import Distractors, Kind
from perk.documents.generator import generate
from perk.documents.items import Item, Passage, gives_away, holds, read_hotpotqa, read_pool, read_triviaqa
from perk.problems import Made, Problem, Question
from perk.retrieval import Index
from perk.segments import segments_of
from perk.tokens import Tokens

logger = logging.getLogger(__name__)
GENERATED_TOKENS = 32
"""No generated passage is shorter, so a context never has more than length / GENERATED_TOKENS of them."""
SAMPLE = 64
"""Passages by which it is judged whether a question has distractors at all."""
STUB = 12
"""A last distractor that would be cut to fewer tokens is left out."""


class Pool:
    """Passages of one split that may stand beside any of its questions."""

    def __init__(self, passages: Sequence[Passage], how: Distractors) -> None:
        self.passages = list(passages)
        self._index = (
            Index([each.line for each in self.passages]) if how is Distractors.bm25 and self.passages else None
        )

    def candidates(self, question: str, rng: random.Random, most: int) -> Iterator[Passage]:
        """All passages in the order in which they should be used; `most` are expected to be enough."""
        if self._index is None:
            drawn = rng.sample(self.passages, min(most, len(self.passages)))
            yield from drawn
            seen = set(drawn)
            yield from rng.sample(left := [each for each in self.passages if each not in seen], len(left))
            return
        for start, stop in ((0, most), (most, len(self.passages))):
            yield from (self.passages[place] for place in self._index.best(question, stop)[start:])


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits.

    Raises:
        UserError: a file is missing or malformed, or leaves a split without questions.
    """
    if config.made:
        return {split: _generated(config, tokens, split) for split in SPLITS}
    items = _items(config)
    pools = _pools(config, items)
    kept = {split: _with_distractors(config, tokens, split, items[split], pools[split]) for split in SPLITS}
    return {split: _split(config, tokens, split, kept[split], pools[split]) for split in SPLITS}


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
        raise UserError(
            f"data.files: no question with a gold passage is left for the {split} split, and with answers that most "
            "passages do not hold; give a larger file"
        )
    count = config.count[split] or len(items)
    if count > len(items):
        logger.info("%s: %d questions for %d problems: asked again in another order", split, len(items), count)
    # a distractor of fewer tokens is rare
    most = max(64, config.length_of(split) // STUB)

    def make(index: int) -> Problem:
        item = items[index % len(items)]
        rng = random.Random(f"{config.seed}/{split}/{index}/distractors")
        return _problem(config, tokens, split, index, item, pool.candidates(item.question, rng, most))

    return Made(count, make)


def _problem(
    config: DataConfig, tokens: Tokens, split: str, index: int, item: Item, candidates: Iterable[Passage]
) -> Problem:
    """The item's gold passages and as many candidates as fit, shuffled; the last is cut at a word to fill it. A passage
    that is longer than a segment becomes several, each under its title, which stay together."""
    name, length = f"{config.name}/{split}/{index}", config.length_of(split)
    shown = [_segments(passage, tokens, config.segment_tokens) for passage in item.gold]
    left = length - sum(sum(tokens.counts(texts)) for texts in shown)
    if left < 0:
        raise UserError(
            f"{name}: the gold passages of question {item.id} take {length - left} of {length} tokens; raise "
            "data.length, or lower data.documents.most_gold"
        )
    titles = {passage.title for passage in item.gold}
    used = list(item.gold)
    refused = 0
    for passage in candidates:
        if left <= STUB:
            break
        if passage.title in titles:
            continue
        texts = _segments(passage, tokens, config.segment_tokens)
        if any(gives_away(text, item.answers) for text in (passage.line, *texts)):
            refused += 1
            continue
        fitting = _fitting(texts, tokens, left)
        if fitting:
            shown.append(fitting)
            used.append(passage)
            left -= sum(tokens.counts(fitting))
    if left > length // 100 + STUB:
        hold, out = "", ""
        if refused > len(used):
            hold = f", as {refused} others hold an accepted answer ({' | '.join(item.answers[:3])}) as the metric does"
            out = f"leave question {item.id} out, "
        raise UserError(
            f"{name}: {len(used) - len(item.gold)} distractors fill only {length - left} of {length} tokens{hold}; "
            f"{out}give more passages with data.documents.pool, or lower data.length"
        )
    order = list(range(len(shown)))
    random.Random(f"{config.seed}/{split}/{index}/order").shuffle(order)
    starts = {place: sum(len(shown[each]) for each in order[:rank]) for rank, place in enumerate(order)}
    segments = tuple(text for place in order for text in shown[place])
    gold = tuple(starts[place] + part for place in range(len(item.gold)) for part in _telling(shown[place], item))
    question = Question(f"{name}/{item.id}", item.question, item.answers, item.kind, item.support, gold)
    sources = (f"question:{digest(item.question)}", *(f"passage:{digest(passage.line)}" for passage in used))
    group = "" if config.made else sources[0]
    return Problem(name, segments, (question,), sources, sum(tokens.counts(segments)), group=group)


def _segments(passage: Passage, tokens: Tokens, segment: int) -> list[str]:
    """The passage whole where a segment holds it, else in parts under its title; a long title stands once."""
    (whole,), (head,) = tokens.counts([passage.line]), tokens.counts([passage.head])
    if whole <= segment:
        return [passage.line]
    if head <= segment // 2:
        return segments_of(passage.text, tokens, segment, passage.head)
    return segments_of(passage.line, tokens, segment)


def _fitting(texts: Sequence[str], tokens: Tokens, limit: int) -> list[str]:
    """As many of the first segments as `limit` tokens hold, and of the next as many words, if they are no stub."""
    kept: list[str] = []
    for text, count in zip(texts, tokens.counts(texts), strict=True):
        if count > limit:
            last = _shortened(text, tokens, limit) if limit > STUB else ""
            return [*kept, last] if last else kept
        kept.append(text)
        limit -= count
    return kept


def _shortened(text: str, tokens: Tokens, limit: int) -> str:
    """The first words, as many as `limit` tokens hold."""
    words = text.split(" ")
    total, kept = 0, 0
    for count in tokens.counts([f" {word}" for word in words]):
        if total + count > limit:
            break
        total, kept = total + count, kept + 1
    while kept and tokens.counts([" ".join(words[:kept])])[0] > limit:
        kept -= 1
    return " ".join(words[:kept])


def _telling(texts: Sequence[str], item: Item) -> list[int]:
    """Which segments of a gold passage hold its support, or an answer where no support is known; all if none alone."""
    support = [" ".join(sentence.split()) for sentence in item.support]
    told = [
        place
        for place, text in enumerate(texts)
        if any(sentence in text for sentence in support) or (not support and holds(text, item.answers))
    ]
    return told or list(range(len(texts)))


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
    read = {split: _answerable(split, items) for split, items in read.items()}
    kept = _without_shared(read)
    for split, items in kept.items():
        random.Random(f"{config.seed}/{split}/items").shuffle(items)
    return kept


def _answerable(split: str, items: Sequence[Item]) -> list[Item]:
    """Without the questions that no answer could be right to: of `A` nothing is left that the metric compares."""
    kept = [item for item in items if any(map(normalise, item.answers))]
    if lost := [item for item in items if not any(map(normalise, item.answers))]:
        logger.warning(
            "%s: %d questions left out, whose answers are articles or signs alone, such as %r of %s: the metric leaves "
            "nothing of them", split, len(lost), lost[0].answers[0], lost[0].id,
        )  # fmt: skip
    return kept


def _with_distractors(config: DataConfig, tokens: Tokens, split: str, items: Sequence[Item], pool: Pool) -> list[Item]:
    """Without the questions of which an accepted answer (`Pa`, `a`) is part of some word of nearly every passage: the
    metric would count them all, and too few are left to fill a context."""
    sample, length = pool.passages[:SAMPLE], config.length_of(split)

    def lacks(item: Item) -> bool:
        if 2 * sum(gives_away(each.line, item.answers) for each in sample) <= len(sample):
            return False
        clean = [each.line for each in pool.passages if not gives_away(each.line, item.answers)]
        return sum(tokens.counts(clean)) < length

    lost = {item.id: item for item in items if lacks(item)}
    if lost:
        first = next(iter(lost.values()))
        logger.warning(
            "%s: %d of %d questions left out, as most passages hold an accepted answer as the metric looks for it, "
            "such as %s of %s", split, len(lost), len(items), min(first.answers, key=len), first.id,
        )  # fmt: skip
    return [item for item in items if item.id not in lost]


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
