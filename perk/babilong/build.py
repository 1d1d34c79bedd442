"""BabiLong problems: a story's facts hidden in a long text, and a question about them (paper, appendix A.1)."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from common.data.dataroot import find
from common.data.splits import SPLITS, completed, digest
from common.errors import UserError
from perk.babilong.config import Budget
from perk.babilong.haystack import Haystack, open_haystack
from perk.babilong.passage import FINE, Piece, filled, passage
from perk.babilong.placing import Place, allotted, indexed, merged, within
from perk.babilong.simulator import tell
from perk.babilong.stories import Asked, Story, read_stories
from perk.config import DataConfig
from perk.problems import Made, Problem, Question
from perk.tokens import Tokens

logger = logging.getLogger(__name__)
Case = tuple[Story, tuple[Asked, ...]]


@dataclass(frozen=True)
class _Builder:
    """Makes the problems of one split from its stories and its part of the haystack."""

    config: DataConfig
    split: str
    haystack: Haystack
    tokens: Tokens
    cases: Sequence[Case]
    """Real questions; empty where worlds are simulated."""

    def __call__(self, index: int) -> Problem:
        """Problem number `index`, a pure function of (data.seed, split, index)."""
        config, mine = self.config, self.config.babilong
        name = f"{config.name}/{self.split}/{index}"
        story, asked = self._case(index)
        rng = random.Random(f"{config.seed}/{self.split}/{index}/haystack")
        told = story.facts[: max(each.facts for each in asked)]
        facts = indexed(told, mine.index)
        costs = self.tokens.counts([f" {fact}" for fact in facts])
        added, length = sum(costs), config.length_of(self.split)
        budget = length if mine.budget is Budget.on_top else length - added
        if budget < config.segment_tokens // 2:
            raise UserError(
                f"{name}: {len(facts)} facts take {added} of {length} tokens; raise data.length, or use "
                "data.babilong.budget=on_top or data.babilong.most_facts"
            )
        if max(costs) > config.segment_tokens:
            raise UserError(
                f"{name}: a fact takes {max(costs)} tokens, a segment has {config.segment_tokens}; raise data.segment"
            )
        on_top = added if mine.budget is Budget.on_top else 0
        limit = config.segment_tokens
        while True:  # a text may have a token more than its parts: its first word has no blank before it
            rng = random.Random(f"{config.seed}/{self.split}/{index}/haystack")
            longest = config.segment_tokens // FINE
            pieces, texts = passage(self.haystack, self.split, rng, self.tokens, budget, longest)
            written, where = self._written(pieces, facts, costs, limit, rng)
            sizes = self.tokens.counts(written)
            over, beyond = max(sizes) - config.segment_tokens, sum(sizes) - on_top - length
            if over <= 0 and beyond <= 0:
                break
            limit, budget = max(limit - max(0, over), *costs), budget - max(0, beyond)
        questions = tuple(
            Question(
                id=f"{name}/{number}",
                text=each.text,
                answers=(each.answer,),
                kind=f"qa{mine.task}",
                support=tuple(facts[place] for place in each.support),
                gold=tuple(dict.fromkeys(where[place][0] for place in each.support)),
            )
            for number, each in enumerate(asked)
        )
        sources = (f"story:{story.key}", f"told:{told_key(told)}", *(f"text:{text}" for text in texts))
        group = sources[0] if self.cases else ""
        return Problem(name, tuple(written), questions, sources, sum(sizes), on_top, group=group)

    def _written(
        self, pieces: Sequence[Piece], facts: Sequence[str], costs: Sequence[int], limit: int, rng: random.Random
    ) -> tuple[list[str], list[Place]]:
        """Segments of at most `limit` tokens with the facts in them, and where each fact stands."""
        mine = self.config.babilong
        placement = mine.placement_of(self.split)
        total = sum(costs) + sum(piece.tokens for piece in pieces)
        for number in count(max(1, -(-total // limit))):
            chosen = allotted(facts, costs, number, limit, placement, mine.order, rng)
            if chosen is None:
                continue
            taken = [0] * number
            for place, cost in zip(chosen, costs, strict=True):
                taken[place] += cost
            if (segments := filled(pieces, taken, limit)) is None:
                continue
            used = [place for place in range(number) if segments[place] or taken[place]]
            kept = [segments[place] for place in used]
            where = within(kept, [used.index(place) for place in chosen], mine.order, rng)
            return merged(kept, facts, where), where
        raise AssertionError("a segment for each piece and each fact holds them")

    def _case(self, index: int) -> Case:
        if self.cases:
            return self.cases[index % len(self.cases)]
        config, mine = self.config, self.config.babilong
        story = tell(mine.world, mine.task, config.seed, self.split, index, config.questions)
        return story, story.asked


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits.

    Raises:
        UserError: a file or a haystack is missing or malformed, or leaves a split without questions.
    """
    haystack = open_haystack(config.babilong.haystack, config.root, config.seed)
    cases = {split: [] for split in SPLITS} if config.made else read_cases(config)
    splits = {}
    for split in SPLITS:
        size = config.count[split] or len(cases[split])
        if cases[split] and size > len(cases[split]):
            logger.info("%s: %d questions for %d problems: asked again in other text", split, len(cases[split]), size)
        splits[split] = Made(size, _Builder(config, split, haystack, tokens, cases[split]))
    return splits


def read_cases(config: DataConfig) -> dict[str, list[Case]]:
    """The questions of real bAbI files, each split in an order that the seed shuffles.

    A story told in a later split too (test comes last) is left out, and so are questions before which the same was told
    as before one of a later split: in task 4 many short stories recur, elsewhere some beginnings.

    Raises:
        UserError: a file is missing or malformed, or a split has no question left.
    """
    stories: dict[str, list[Story]] = {}
    for split in SPLITS:
        if (name := getattr(config.files, split)) is not None:
            stories[split] = read_stories(find(config.root, name, "generate stories: data.files.train=null"))
    stories = completed(stories, lambda story: story.key, config.shares, config.seed, "stories")
    cases = _without_shared(stories, config.babilong.most_facts)
    for split, asked in cases.items():
        if not asked:
            raise UserError(
                f"data.files: no question is left for the {split} split; give a larger file, other data.shares, or "
                "data.babilong.most_facts=0"
            )
        random.Random(f"{config.seed}/{split}/cases").shuffle(asked)
    return cases


def told_key(facts: Sequence[str]) -> str:
    """Key of what is told before a question."""
    return digest("\n".join(facts))


def _without_shared(stories: Mapping[str, list[Story]], most_facts: int) -> dict[str, list[Case]]:
    kept: dict[str, list[Case]] = {}
    seen: set[str] = set()
    for split in reversed(SPLITS):
        cases: list[tuple[Case, set[str]]] = [
            ((story, (asked,)), {story.key, told_key(story.facts[: asked.facts])})
            for story in stories[split]
            for asked in story.asked
            if not most_facts or asked.facts <= most_facts
        ]
        mine = [(case, keys) for case, keys in cases if not keys & seen]
        if dropped := len(cases) - len(mine):
            logger.info("%s: %d questions left out on what another split tells too", split, dropped)
        kept[split] = [case for case, _ in mine]
        seen.update(*(keys for _, keys in mine))
    return {split: kept[split] for split in SPLITS}
