"""The English that the model tiny_stories is pre-trained on: stories in plain text, records, articles and API
documents, each with statements of what follows, and lists said twice.

`passage(seed, number)` is a pure function of its arguments. What a passage states does follow. Everything is of the
generators' `pretrain` part, so no split of a data set has a story, sentence, student, name or document of it, and no
question of a data set stands in it in the form in which it is asked there.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence

from common.data.splits import PRETRAIN
from perk.apis import generator as apis
from perk.babilong import grammar
from perk.babilong.config import Index, WorldConfig
from perk.babilong.placing import indexed
from perk.babilong.simulator import tell
from perk.babilong.stories import Asked, Story
from perk.babilong.vocabulary import GIVERS, OBJECTS, PERSONS, PLACES
from perk.documents import generator as articles
from perk.documents.config import Kind
from perk.students.config import Ask, StudentsConfig, Variant
from perk.students.generator import generate
from perk.students.records import GRADE, ID, MAJOR, NAME, SCHOOL, YEAR, Record, line_of
from perk.students.vocabulary import FIRST, LAST, MAJORS, SUFFIXES, TITLES, YEARS
from perk.tokens import Words

Writer = Callable[[int, int], str]
FACTS = {1: [1, 8], 2: [3, 10], 3: [6, 14], 4: [2, 2], 5: [4, 12]}
"""Fewest and most facts of a story."""
RECORD_TOKENS = 64
"""No record has more."""
_ASKED = (
    (r"Where is (?P<what>.+)\?", ("{what} is in the {answer}.", "Now {what} is in the {answer}.")),
    (r"Where was the (?P<what>\w+) before the (?P<place>\w+)\?", ("Until the {what} came to the {place} it was in the {answer}.",)),  # noqa: E501
    (r"What is (?P<side>\w+) of the (?P<what>\w+)\?", ("The {answer} lies {side} of the {what}.",)),
    (r"What is the (?P<what>\w+) (?P<side>\w+) of\?", ("The {what} lies {side} of the {answer}.",)),
    (r"What did (?P<who>\w+) give to (?P<whom>\w+)\?", ("From {who} to {whom} went the {answer}.",)),
    (r"Who did (?P<who>\w+) give the (?P<what>\w+) to\?", ("The {what} went from {who} to {answer}.",)),
    (r"Who gave the (?P<what>\w+) to (?P<whom>\w+)\?", ("{whom} has had the {what} from {answer}.",)),
    (r"Who gave the (?P<what>\w+)\?", ("The {what} came from {answer}.",)),
    (r"Who received the (?P<what>\w+)\?", ("The {what} came to {answer}.",)),
)  # fmt: skip
"""Form of a question -> what it turns into, in other words than those it is asked in."""


def passage(seed: int, number: int) -> str:
    """Passage `number`: one of KINDS."""
    rng = random.Random(f"{seed}/stories/{number}")
    (kind,) = rng.choices(list(KINDS), weights=SHARES)
    return KINDS[kind](seed, number)


def drill(seed: int, number: int) -> str:
    """Lines of random words, then the same lines in another order: nothing is to be learned from it but to copy."""
    rng = random.Random(f"{seed}/drill/{number}")
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(2, 6))) for _ in range(rng.randint(3, 8))]
    return "\n".join([*lines, *rng.sample(lines, len(lines))]) + "\n"


def every_word() -> str:
    """Every word of the generators' lists."""
    tasks = [f"{task} {loader} {purpose}" for task, (loader, purpose) in apis.TASKS.items()]
    names = [*FIRST, *LAST, *TITLES, *SUFFIXES, *YEARS, *MAJORS, *(major for each in MAJORS.values() for major in each)]
    places = [*articles.TRADES, *articles.WARES, *articles.FEATS]
    lists = (grammar.words(), PERSONS, PLACES, OBJECTS, names, places, apis.SUBJECTS, apis.SIZES, apis.REQUESTS, tasks)
    return " ".join(word for each in lists for word in each)


# ---- stories


def _story(seed: int, number: int) -> str:
    """Facts between sentences that have nothing to do with them, then what follows."""
    rng = random.Random(f"{seed}/story/{number}")
    story, told = _told(seed, number, rng)
    pieces: list[str] = []
    rest = list(grammar.document(seed, PRETRAIN, number))
    between = rng.choice((0.0, 0.3, 0.7))
    for fact in told:
        while rest and rng.random() < between:
            pieces.append(rest.pop())
        pieces.append(fact)
    lines = "\n" if rng.random() < 0.2 else " "
    asked = list(story.asked)
    rng.shuffle(asked)
    return lines.join([*pieces, *(_stated(each, told, rng) for each in asked[:8])]) + lines


def _told(seed: int, number: int, rng: random.Random) -> tuple[Story, list[str]]:
    """A story with all that can be asked of it, and its facts as they stand in the text."""
    task = rng.choice((1, 1, 1, 2, 2, 3, 4, 5))
    world = WorldConfig(
        persons=rng.randint(2, len(GIVERS)), places=rng.randint(3, len(PLACES)), objects=rng.randint(1, len(OBJECTS)),
        facts=FACTS[task],
    )  # fmt: skip
    story = tell(world, task, seed, PRETRAIN, number, questions=0)
    return story, indexed(story.facts, rng.choice((Index.character, Index.character, Index.story, Index.none)))


def _stated(asked: Asked, told: Sequence[str], rng: random.Random) -> str:
    """The answer as a statement, often after the facts that give it."""
    for form, ways in _ASKED:
        if found := re.fullmatch(form, asked.text):
            text = rng.choice(ways).format(answer=asked.answer, **found.groupdict())
            break
    else:
        raise ValueError(f"no statement for {asked.text!r}")
    text = text[0].upper() + text[1:]
    shown = " ".join(told[place] for place in sorted(asked.support))
    style = rng.random()
    if style < 0.4:
        return text
    named = text.split()[0] in (*PERSONS, *GIVERS)
    return f"{shown} So {text if named else text[0].lower() + text[1:]}" if style < 0.8 else shown


# ---- records


def _records(seed: int, number: int) -> str:
    """A few students, then statements about one or two of them."""
    rng = random.Random(f"{seed}/records/{number}")
    settings = StudentsConfig(ask=Ask.recall, variant=rng.choice(list(Variant)))
    length = RECORD_TOKENS * rng.randint(4, 5)
    whole = generate(settings, Words(), length, seed, PRETRAIN, number).records
    records = whole[: rng.randint(2, 4)]
    said = [rng.choice(REMARKS)(records, rng) for _ in range(rng.randint(3, 8))]
    return "\n".join([*map(line_of, records), *said]) + "\n"


def _of_one(records: Sequence[Record], rng: random.Random) -> str:
    record = rng.choice(records)
    way = rng.choice(
        (
            "Student {ID} has the name {NAME}.", "Student {ID} has the grade {GRADE}.", "Student {ID} studies {MAJOR}.",
            "Student {ID} is a {YEAR}.", "Student {ID} goes to the {SCHOOL}.", "{NAME} has the grade {GRADE}.",
        )
    )  # fmt: skip
    return way.format(
        ID=record[ID], NAME=record[NAME], GRADE=record[GRADE], MAJOR=record[MAJOR], YEAR=record[YEAR],
        SCHOOL=record[SCHOOL],
    )  # fmt: skip


def _of_two(records: Sequence[Record], rng: random.Random) -> str:
    one, two = rng.sample(records, 2)
    if rng.random() < 0.5:
        higher, lower = sorted((one, two), key=lambda record: int(record[GRADE]), reverse=True)
        if higher[GRADE] == lower[GRADE]:
            return f"Students {one[ID]} and {two[ID]} both have {one[GRADE]}."
        return f"{higher[ID]} with {higher[GRADE]} is above {lower[ID]} with {lower[GRADE]}."
    field = rng.choice((MAJOR, SCHOOL, YEAR))
    same = "the same" if one[field] == two[field] else "another"
    return f"{one[ID]} with {one[field]} and {two[ID]} with {two[field]}: {same} {field}."


def _again(records: Sequence[Record], rng: random.Random) -> str:
    return line_of(rng.choice(records))


REMARKS: Sequence[Callable[[Sequence[Record], random.Random], str]] = (_of_one, _of_one, _of_one, _of_two, _again)


# ---- articles and API documents


def _articles(seed: int, number: int) -> str:
    """Articles on towns and persons, then their first sentences in other words."""
    rng = random.Random(f"{seed}/articles/{number}")
    item = articles.generate(Kind.hotpotqa, seed, PRETRAIN, number, rng.randint(2, 4))
    shown = [*item.gold, *item.others]
    rng.shuffle(shown)
    said = []
    for each in rng.choices(shown, k=rng.randint(2, 6)):
        first = each.text.split(". ")[0]
        if found := re.fullmatch(r"(.+) is a town on the river (.+)", first):
            said.append(f"The river {found[2]} flows past {found[1]}.")
        elif found := re.fullmatch(r"(.+) was an? (\w+) born in (.+) in (\d+)", first):
            said.append(f"{found[3]} saw the birth of {found[1]}, the {found[2]}, {found[4]}.")
    return "\n".join([*(each.line for each in shown), *said]) + "\n"


def _apis(seed: int, number: int) -> str:
    """API documents, then what to load for what."""
    rng = random.Random(f"{seed}/apis/{number}")
    _, found = apis.generate(seed, PRETRAIN, number, rng.randint(1, 3))
    said = []
    for each in rng.choices(found, k=rng.randint(1, 4)):
        purpose = each.document.rpartition("A model to ")[2]
        said.append(f"To {purpose.removesuffix('.')} load {each.call}.")
    rng.shuffle(found)
    return "\n".join([*(each.document for each in found), *said]) + "\n"


# ---- running text and lists


def _text(seed: int, number: int) -> str:
    """Sentences that belong together."""
    return " ".join(grammar.document(seed, PRETRAIN, MANY + number)) + " "


def _list(seed: int, number: int) -> str:
    """Facts of a story or students, then the same lines once more in another order."""
    rng = random.Random(f"{seed}/list/{number}")
    if rng.random() < 0.7:
        _, lines = _told(seed, MANY + number, rng)
    else:
        settings = StudentsConfig()
        lines = [
            line_of(each) for each in generate(settings, Words(), RECORD_TOKENS * 4, seed, PRETRAIN, number).records
        ]
        lines = lines[: rng.randint(2, 4)]
    join = rng.choice(("\n", " "))
    return join.join([*lines, *rng.sample(lines, len(lines))]) + join


MANY = 2**40
"""Numbers of documents from here on are used by one kind of passage alone."""
KINDS: Mapping[str, Writer] = {
    "stories": _story,
    "records": _records,
    "articles": _articles,
    "apis": _apis,
    "text": _text,
    "lists": _list,
}
SHARES = (50, 14, 7, 7, 5, 17)
WORDS = (
    *(*PERSONS, *PLACES, *OBJECTS, *FIRST, *LAST, *YEARS, *grammar.MEN, *grammar.WOMEN, *grammar.SPOTS),
    *(*grammar.TRADES, *grammar.KIN, *grammar.QUALITIES, *grammar.MOODS, *grammar.DEEDS, *apis.SUBJECTS),
    *map(str, range(100)),
    *"event so the is in of to what which who where yes no student grade year school moved went took left".split(),
)
"""What `drill` draws from."""
