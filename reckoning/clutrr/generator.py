"""Kinship stories made to order, in our own words.

`generate` is a pure function of its arguments. Which split a path or a story belongs to is decided by its words alone
(`paths`), so nothing held out is in two splits, whatever the seed or the settings.
"""

import random
from collections.abc import Sequence

from common.errors import UserError
from reckoning.clutrr import family
from reckoning.clutrr.config import ClutrrConfig
from reckoning.clutrr.kinship import WORDS, readings
from reckoning.clutrr.paths import answers_of, split_by_digest, split_of
from reckoning.clutrr.wording import Fact, fact_text, question_text
from reckoning.problems import Problem, Question, content_key

ATTEMPTS = 5_000


def generate(
    config: ClutrrConfig, seed: int, split: str, index: int, hops: Sequence[int], *, distractors: int = 0,
    order: str = "shuffled",
) -> Problem:  # fmt: skip
    """The story number `index` of a split, with its one question; distractors are the chain of another family.

    Hops take turns, and for each of them the answers take turns in random order, so both are in equal numbers.
    `relevant` are the facts of the chain from the person asked against to the person asked for.

    Raises:
        UserError: no such story was found.
    """
    length, turn = hops[index % len(hops)], index // len(hops)
    by_path = config.held_out == "all" or (config.held_out == "longer" and length > 2)
    answers = answers_of(split, length, by_path=by_path)
    random.Random(f"{seed}/{split}/{length}/{turn // len(answers)}/answers").shuffle(answers)
    answer = answers[turn % len(answers)]
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed}/{split}/{index}/{attempt}")
        path = _path(answer, length, rng)
        names = [f"person {number}" for number in rng.sample(range(1, config.persons + 1), config.persons)]
        facts = _facts(path, names)
        story = content_key(" ".join(fact) for fact in facts)
        if path and (split_of(path) if by_path else split_by_digest(story)) == split and readings(path) == {answer}:
            name = f"Clutrr-{length}-{seed}-{split}-{index}"
            others = _facts(_any_path(distractors, rng), names[length + 1 :])
            return _told(name, story, facts, others, answer, config.paraphrases, order, rng)
    raise UserError(
        f"data.clutrr: no {split} story of {length} facts with the answer {answer} in {ATTEMPTS} attempts; "
        "use data.clutrr.held_out=longer or none"
    )


def _path(answer: str, hops: int, rng: random.Random) -> tuple[str, ...]:
    """Relation words from a person of a new family to that person's `answer`; () where none was found."""
    genders = family.draw_genders(rng)
    persons = family.chain(*WORDS[answer], hops, genders, rng) or []
    return tuple(family.word(one, other, genders) for one, other in zip(persons, persons[1:], strict=False))


def _any_path(hops: int, rng: random.Random) -> tuple[str, ...]:
    """A path of another family, for distractors."""
    path: tuple[str, ...] = ()
    while len(path) < hops:
        path = _path(rng.choice(answers_of("train", 2, by_path=False)), hops, rng)
    return path


def _facts(path: Sequence[str], names: Sequence[str]) -> list[Fact]:
    return list(zip(names[1:], path, names, strict=False))


def _told(
    name: str, story: str, chain: Sequence[Fact], others: Sequence[Fact], answer: str, paraphrases: int, order: str,
    rng: random.Random,
) -> Problem:  # fmt: skip
    facts = [*others, *chain] if order == "distractors_first" else [*chain, *others]
    if order == "shuffled":
        rng.shuffle(facts)
    texts = tuple(fact_text(fact, rng.randrange(paraphrases)) for fact in facts)
    text = question_text(chain[-1][0], chain[0][2])
    question = Question(name, text, answer, tuple(facts.index(fact) for fact in chain), len(chain))
    return Problem(name, story, texts, (), (question,))
