"""The English that the tiny model is pre-trained on: small worlds, lists said twice, families.

`passage(seed, number)` is a pure function of its arguments. What a passage claims to follow does follow. No question
of a data set stands in it in the form in which it is asked there, and no theory of a dev or test split can be in it
(`theory_is_ours`).
"""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from reckoning.proofwriter import theory as logic
from reckoning.proofwriter.generator import BUCKETS, bucket
from reckoning.proofwriter.theory import VARIABLE, Atom, Closure, Derivation, Literal, Rule, Theory, negated
from reckoning.proofwriter.vocabulary import (
    ANIMALS,
    ATTRIBUTES,
    NAMES,
    PATTERNS,
    VERBS,
    clause,
    fact_text,
    noun_phrase,
    pronoun_of,
    rule_text,
    sentence,
)

PERSONS = 20
"""Persons of a family passage are `person 1` ... `person 20`."""


def passage(seed: int, number: int) -> str:
    """Passage `number`: a world, a list or a family."""
    rng = random.Random(f"{seed}/english/{number}")
    (write,) = rng.choices((_world, _list, _family), weights=(55, 20, 25))
    return write(rng)


def drill(seed: int, number: int) -> str:
    """Lines of random words, then the same lines in another order: nothing is to be learned from it but to copy."""
    rng = random.Random(f"{seed}/drill/{number}")
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(2, 6))) for _ in range(rng.randint(3, 8))]
    return "\n".join([*lines, *rng.sample(lines, len(lines))]) + "\n"


def theory_is_ours(sentences: Iterable[str]) -> bool:
    """Whether the generator would give a theory of these sentences to pre-training or train, never to dev or test."""
    return bucket(sentences) in BUCKETS["pretrain"]


# ---- worlds


class World(NamedTuple):
    """A theory, what follows from it, and its sentences by identifier."""

    theory: Theory
    known: Closure
    texts: dict[str, str]


def _world(rng: random.Random) -> str:
    """Facts and rules in any order, then remarks about them."""
    world = _drawn_world(rng)
    told = list(world.texts.values())
    rng.shuffle(told)
    lines = _laid_out(told, rng)
    remarks = rng.choices(REMARKS, weights=WEIGHTS, k=rng.randint(4, 9))
    return lines + " ".join(filter(None, (remark(world, rng) for remark in remarks)))


def _laid_out(told: Sequence[str], rng: random.Random) -> str:
    """The sentences as running text, one a line without full stops, or numbered."""
    style = rng.random()
    if style < 0.4:
        return " ".join(told) + " "
    bare = [text.removesuffix(".") for text in told]
    if style < 0.8:
        return "\n".join(bare) + "\n"
    return "\n".join(f"fact_{number}: {text}" for number, text in enumerate(bare)) + "\n"


def _drawn_world(rng: random.Random) -> World:
    """A theory without contradiction in which something follows, of the pre-training share."""
    while True:
        words = ANIMALS if rng.random() < 0.2 else NAMES
        entities = rng.sample(words, rng.randint(2, 5))
        attributes = rng.sample(ATTRIBUTES, rng.randint(5, 12))
        verbs = rng.sample(VERBS, 2) if rng.random() < 0.25 else []
        facts = {_drawn_fact(entities, attributes, verbs, rng): None for _ in range(rng.randint(2, 8))}
        rules = {_drawn_rule(list(facts), attributes, rng): None for _ in range(rng.randint(1, 7))}
        theory = Theory(
            {f"triple{number}": fact for number, fact in enumerate(facts, 1)},
            {f"rule{number}": rule for number, rule in enumerate(rules, 1)},
        )
        known = logic.closure(theory)
        if not logic.is_consistent(known) or all(derivation.depth == 0 for derivation in known.values()):
            continue
        pronoun, patterns = pronoun_of(entities), rng.choice((1, 1, PATTERNS))
        texts = {name: fact_text(fact, rng.randrange(patterns)) for name, fact in theory.facts.items()}
        texts |= {name: rule_text(rule, pronoun, rng.randrange(patterns)) for name, rule in theory.rules.items()}
        if theory_is_ours(texts.values()):
            return World(theory, known, texts)


def _drawn_fact(
    entities: Sequence[str], attributes: Sequence[str], verbs: Sequence[str], rng: random.Random
) -> Literal:
    subject = rng.choice(entities)
    if verbs and rng.random() < 0.4:
        thing = rng.choice([entity for entity in entities if entity != subject])
        return Literal(Atom(subject, rng.choice(verbs), thing), rng.random() < 0.9)
    return Literal(Atom(subject, "is", rng.choice(attributes)), rng.random() < 0.9)


def _drawn_rule(facts: Sequence[Literal], attributes: Sequence[str], rng: random.Random) -> Rule:
    """About everyone; its conditions are more often than not what some fact says."""
    body: dict[Literal, None] = {}
    for _ in range(1 if rng.random() < 0.8 else 2):
        if rng.random() < 0.6:
            atom, positive = rng.choice(facts)
            body[Literal(atom._replace(subject=VARIABLE), positive)] = None
        else:
            body[Literal(Atom(VARIABLE, "is", rng.choice(attributes)))] = None
    heads = [word for word in attributes if ("is", word) not in {literal.atom[1:] for literal in body}]
    return Rule(tuple(body), Literal(Atom(VARIABLE, "is", rng.choice(heads)), rng.random() < 0.65))


def _lowered(text: str) -> str:
    """The sentence inside another one."""
    bare = text.removesuffix(".")
    return bare if bare.split()[0] in NAMES else bare[0].lower() + bare[1:]


def _proven(world: World, rng: random.Random, least: int = 1) -> Derivation:
    """Something that follows, by `least` rules where there is any such."""
    found = [derivation for derivation in world.known.values() if derivation.depth >= least]
    return rng.choice(found or list(world.known.values()))


def _reasons(derivation: Derivation, world: World) -> list[str]:
    """The sentences of a proof, facts first, then rules in the order in which they are applied."""
    names = list(dict.fromkeys(step.source for step in derivation.steps()))
    names.sort(key=lambda name: name in world.theory.rules)
    return [world.texts[name] for name in names]


def _because(derivation: Derivation, world: World, rng: random.Random) -> str:
    """` because ... and ...`, or nothing."""
    if rng.random() < 0.4:
        return ""
    joint = rng.choice((" and ", ", ", ","))
    return " because " + joint.join(map(_lowered, _reasons(derivation, world)))


def _consequence(world: World, rng: random.Random) -> str:
    """`So Anne is young.`"""
    opening = rng.choice(("So", "Therefore", "Thus", "Hence", "This means that", "It follows that"))
    return f"{opening} {clause(_proven(world, rng).literal)}."


def _explanation(world: World, rng: random.Random) -> str:
    """`Anne is young because Anne is kind and if someone is kind then they are young.`"""
    derivation = _proven(world, rng)
    return sentence(clause(derivation.literal) + _because(derivation, world, rng))


def _argument(world: World, rng: random.Random) -> str:
    """`Anne is kind. If someone is kind then they are young. So Anne is young.`"""
    derivation = _proven(world, rng)
    return " ".join([*_reasons(derivation, world), f"So {clause(derivation.literal)}."])


def _repetition(world: World, rng: random.Random) -> str:
    """A sentence once more."""
    opening = rng.choice(("We know that", "Remember that", "Again,", "As we said,", "It is a fact that"))
    return f"{opening} {_lowered(rng.choice(list(world.texts.values())))}."


def _verdict(world: World, rng: random.Random) -> str:
    """What somebody says, and whether it holds: right, wrong, or nobody can say."""
    literal, derivation = _claim(world, rng)
    label = logic.label(literal, world.known)
    frame, words = rng.choice(VERDICTS)
    claim = frame.format(clause=clause(literal), question=_inverted(literal))
    why = _because(derivation, world, rng) if derivation else ""
    return f"{sentence(claim).removesuffix('.')} {words[label]}{why}."


VERDICTS: Sequence[tuple[str, dict[str, str]]] = (
    ("{question}?", {"true": "Yes", "false": "No", "unknown": "None can say"}),
    ("{question}?", {"true": "Yes", "false": "No", "unknown": "None can say"}),
    ("someone says that {clause}.", {"true": "That is right", "false": "That is wrong", "unknown": "Who knows"}),
    ("{clause}:", {"true": "true", "false": "false", "unknown": "unknown"}),
)


def _claim(world: World, rng: random.Random) -> tuple[Literal, Derivation | None]:
    """A statement, and what proves or refutes it; true, false and open ones are equally frequent."""
    side = rng.randrange(3)
    if side < 2:
        derivation = _proven(world, rng, least=rng.choice((0, 1, 1)))
        return (derivation.literal if side else negated(derivation.literal)), derivation
    heads = list(dict.fromkeys(literal.atom[1:] for literal in world.known))
    subjects = list(dict.fromkeys(literal.atom.subject for literal in world.known))
    for _ in range(8):
        literal = Literal(Atom(rng.choice(subjects), *rng.choice(heads)), rng.random() < 0.5)
        proof = world.known.get(literal) or world.known.get(negated(literal))
        if proof is None and literal.atom.subject != literal.atom.object:
            return literal, None
    derivation = _proven(world, rng)
    return derivation.literal, derivation


def _inverted(literal: Literal) -> str:
    """`is Anne not kind`, `does the cat chase the dog`."""
    (subject, verb, thing), positive = literal
    sign = "" if positive else " not"
    if verb == "is":
        return f"is {noun_phrase(subject)}{sign} {thing}"
    return f"does {noun_phrase(subject)}{sign} {verb.removesuffix('s')} {noun_phrase(thing)}"


def _description(world: World, rng: random.Random) -> str:
    """All that is told of one of them, and what follows."""
    subject = rng.choice([fact.atom.subject for fact in world.theory.facts.values()])
    told = [clause(fact) for fact in world.theory.facts.values() if fact.atom.subject == subject]
    derived = [clause(d.literal) for d in world.known.values() if d.depth and d.literal.atom.subject == subject]
    text = f"About {noun_phrase(subject)}: {', '.join(told)}"
    return f"{text}. So {' and '.join(derived)}." if derived else f"{text}."


def _holders(world: World, rng: random.Random) -> str:
    """`Who is young? Anne, Bob.`"""
    (_, verb, thing), positive = _proven(world, rng, least=0).literal
    holders = [
        noun_phrase(literal.atom.subject)
        for literal in world.known
        if literal.atom[1:] == (verb, thing) and literal.positive == positive
    ]
    asked = clause(Literal(Atom("who", verb, thing), positive), subject="who")
    return f"{sentence(asked).removesuffix('.')}? {', '.join(holders)}."


Remark = Callable[[World, random.Random], str]
REMARKS: Sequence[Remark] = (
    _consequence,
    _explanation,
    _argument,
    _repetition,
    _verdict,
    _description,
    _holders,
)
WEIGHTS = (16, 20, 10, 12, 28, 7, 7)


# ---- lists


def _list(rng: random.Random) -> str:
    """Sentences about nothing in particular, then the same ones once more, in the same or in another order."""
    words = ANIMALS if rng.random() < 0.2 else NAMES
    entities = rng.sample(words, rng.randint(2, 8))
    attributes = rng.sample(ATTRIBUTES, rng.randint(4, 16))
    verbs = rng.sample(VERBS, 3) if rng.random() < 0.3 else []
    told: dict[str, None] = {}
    for _ in range(rng.randint(2, 8)):
        if rng.random() < 0.6:
            told[fact_text(_drawn_fact(entities, attributes, verbs, rng), rng.choice((0, 0, 0, 1, 2, 3)))] = None
        else:
            fact = _drawn_fact(entities, attributes, verbs, rng)
            told[rule_text(_drawn_rule([fact], attributes, rng), pronoun_of(entities), rng.choice((0, 0, 1, 2, 3)))] = (
                None
            )
    sentences = list(told)
    again = sentences if rng.random() < 0.4 else rng.sample(sentences, len(sentences))
    if rng.random() < 0.3:
        numbered = [f"fact_{number}" for number in range(len(sentences))]
        pairs = dict(zip(sentences, numbered, strict=True))
        lines = [f"{pairs[text]}: {text.removesuffix('.')}" for text in sentences]
        return "\n".join([*lines, *(f"{pairs[text]}: {text.removesuffix('.')}" for text in again)])
    return _laid_out(sentences, rng) + _laid_out(again, rng).strip()


# ---- families

PARENTS = {"father": "m", "mother": "f"}
MALE = {
    "son": "daughter",
    "brother": "sister",
    "father": "mother",
    "husband": "wife",
    "grandfather": "grandmother",
    "grandson": "granddaughter",
    "uncle": "aunt",
    "nephew": "niece",
    "son-in-law": "daughter-in-law",
    "father-in-law": "mother-in-law",
    "brother-in-law": "sister-in-law",
}
"""Male form -> female form: 22 words."""
RELATIONS = tuple(word for pair in MALE.items() for word in pair)
WORDS = (
    *(*NAMES, *ANIMALS, *ATTRIBUTES, *VERBS, *RELATIONS),
    *map(str, range(1, PERSONS + 1)),
    *"is are not if then and or so because people things who what yes no none true false has called of to fact".split(),
)
"""What `drill` draws from."""


@lru_cache
def compositions() -> dict[tuple[str, str], str]:
    """(R, S) -> the only thing T that an S of an R of somebody can be to them, where there is such a word.

    `sister`, `son` -> `nephew`: a son of a sister is a nephew. Read off one large family in which everybody has all
    kinds of relatives and nobody married twice; what has two answers there is left out.
    """
    relation = _relations()
    found: dict[tuple[str, str], set[str]] = {}
    for (middle, base), first in relation.items():
        for (other, same), second in relation.items():
            if same == middle and other != base:
                found.setdefault((first, second), set()).add(relation.get((other, base), ""))
    return {pair: words.pop() for pair, words in found.items() if len(words) == 1 and "" not in words}


def _relations() -> dict[tuple[int, int], str]:
    """(a, b) -> what a is to b, in a family of four generations."""
    sex: list[str] = []
    spouse: dict[int, int] = {}
    parents: dict[int, tuple[int, int]] = {}

    def born(kind: str, of: tuple[int, int] | None = None) -> int:
        sex.append(kind)
        if of:
            parents[len(sex) - 1] = of
        return len(sex) - 1

    def couple(man: int, woman: int) -> tuple[int, int]:
        spouse[man], spouse[woman] = woman, man
        return man, woman

    couples = [couple(born("m"), born("f")) for _ in range(16)]
    for shift in (1, 2, 4):  # so that nobody marries a relative
        children = [[born(kind, of) for kind in "mmff"] for of in couples]
        couples = [couple(own[0], children[(number + shift) % 16][2]) for number, own in enumerate(children)]
    return _named(sex, spouse, parents)


def _named(
    sex: Sequence[str], spouse: dict[int, int], parents: dict[int, tuple[int, int]]
) -> dict[tuple[int, int], str]:
    people = range(len(sex))
    children: dict[int, list[int]] = {person: [] for person in people}
    for child, of in parents.items():
        for parent in of:
            children[parent].append(child)

    def siblings(person: int) -> set[int]:
        return {other for parent in parents.get(person, ()) for other in children[parent]} - {person}

    def mates(group: Iterable[int]) -> set[int]:
        return {spouse[person] for person in group if person in spouse}

    relation: dict[tuple[int, int], str] = {}
    for base in people:
        own, mate = set(parents.get(base, ())), mates([base])
        kin: dict[str, set[int]] = {
            "father": own,
            "husband": mate,
            "son": set(children[base]),
            "brother": siblings(base),
            "grandfather": {grand for parent in own for grand in parents.get(parent, ())},
            "grandson": {grand for child in children[base] for grand in children[child]},
            "uncle": {sibling for parent in own for sibling in siblings(parent)},
            "nephew": {child for sibling in siblings(base) for child in children[sibling]},
            "son-in-law": mates(children[base]),
            "father-in-law": {parent for other in mate for parent in parents.get(other, ())},
            "brother-in-law": mates(siblings(base)) | {s for other in mate for s in siblings(other)},
        }
        for word, group in kin.items():
            for other in group:
                relation.setdefault((other, base), word if sex[other] == "m" else MALE[word])
    return relation


def _kinship(person: int, other: int, word: str, form: int) -> str:
    """`person 3 is a son of person 7` in one of three forms, without capital and full stop."""
    article = "an" if word[0] in "aeiou" else "a"
    return (
        f"person {person} is {article} {word} of person {other}",
        f"person {other} has {article} {word} called person {person}",
        f"person {person} is person {other}'s {word}",
    )[form]


def _family(rng: random.Random) -> str:
    """A chain of relatives told link by link in any order, then who is what to whom, and why."""
    table = compositions()
    length = rng.choice((2, 2, 3, 3, 4))
    while True:
        links = [rng.choice(RELATIONS) for _ in range(length)]
        folded = links[:1]
        for link in links[1:]:
            if (folded[-1], link) not in table:
                break
            folded.append(table[folded[-1], link])
        else:
            break
    people = rng.sample(range(1, PERSONS + 1), length + 1)
    facts = [_kinship(people[number + 1], people[number], link, rng.randrange(3)) for number, link in enumerate(links)]
    told = [f"{fact[0].upper()}{fact[1:]}." for fact in rng.sample(facts, len(facts))]
    lines = [_laid_out(told, rng)]
    for _ in range(rng.randint(2, 5)):
        upto = rng.randint(1, length - 1)
        person, other, word = people[upto + 1], people[0], folded[upto]
        why = f" because {','.join(facts[: upto + 1])}" if rng.random() < 0.5 else ""
        style = rng.random()
        if style < 0.5:
            opening = rng.choice(("So", "Therefore", "Thus", "It follows that"))
            lines.append(f"{opening} {_kinship(person, other, word, rng.randrange(3))}{why}.")
        elif style < 0.7:
            number = rng.randrange(upto + 1)
            text = _kinship(people[number + 1], people[number], links[number], rng.randrange(3))
            lines.append(f"{text[0].upper()}{text[1:]}.")
        else:
            lines.append(f"What is person {person} to person {other}? {word}{why}.")
    return lines[0] + " ".join(lines[1:])
