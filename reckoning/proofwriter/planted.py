"""Theories with planted groups: questions that differ in their subject only, one subject per label.

Every subject has as many facts as the others and a chain of rules of the same length; all that tells the labels apart
is where the chain of that subject ends. Subjects, words and order carry no information: they are drawn independently
of the labels.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.theory import VARIABLE, Atom, Literal, Rule
from reckoning.proofwriter.vocabulary import ANIMALS, ATTRIBUTES, NAMES, VERBS

Predicate = tuple[str, str]  # verb and object


class Chain(NamedTuple):
    """A subject's facts and the rules that start from them, first rule first."""

    subject: str
    facts: list[Literal]
    rules: list[Rule]


class Group(NamedTuple):
    """A predicate and, per label of its positive statement, the subject's chain."""

    predicate: Predicate
    chains: dict[str, Chain]


@dataclass
class Draft:
    """A theory in the making. `entities` come in the order of the questions' subjects, then the others."""

    entities: list[str]
    facts: list[Literal]
    rules: list[Rule]
    depth: int
    groups: list[Group]


def plant(config: GeneratorConfig, rng: random.Random) -> Draft:
    """A theory of shape `matched`, `square` or `shared`; the distractors of `shared` are those of `unasked`."""
    depth = rng.choice(config.depths)
    labels = ["true", "false", "unknown"] if config.world == "open" else ["true", "false"]
    words = ANIMALS if rng.random() < config.animals else NAMES
    entities = rng.sample(words[: config.names], len(labels) + 3)
    subjects, others = entities[: len(labels)], entities[len(labels) :]
    predicates = _predicates(config, others, rng)
    draft = Draft(entities, [], [], depth, [])
    for _ in range(config.groups * (2 if depth == 0 else 1)):
        shuffled = rng.sample(subjects, len(subjects))
        if config.shape == "shared":
            _plant_shared(draft, dict(zip(labels, shuffled, strict=True)), config, rng)
        elif config.shape == "square":
            _plant_square(draft, shuffled, predicates, config, rng)
        else:
            _plant_matched(draft, dict(zip(labels, shuffled, strict=True)), predicates, config, rng)
    if config.shape == "shared":
        return draft
    targets = [group.predicate for group in draft.groups]
    for _ in range(config.distractors):
        first, second = next(predicates), next(predicates)
        if rng.random() < 0.5:
            draft.facts.append(Literal(Atom(rng.choice([e for e in others if e != first[1]]), *first)))
        else:  # half of these conclude what is asked, from what no subject is
            head = rng.choice(targets) if rng.random() < 0.5 else second
            draft.rules.append(_rule([(first, True)], (head, config.world == "closed" or rng.random() < 0.5)))
    return draft


def _predicates(config: GeneratorConfig, things: list[str], rng: random.Random) -> Iterator[Predicate]:
    """Different predicates, none about a subject of a question, so that all subjects are mentioned equally often."""
    attributes = iter(rng.sample(ATTRIBUTES[: config.attributes], config.attributes))
    relations = [(verb, thing) for verb in VERBS[: config.verbs] for thing in things]
    rng.shuffle(relations)
    while True:
        if relations and rng.random() < config.relations:
            yield relations.pop()
        else:
            yield "is", next(attributes)


Signed = tuple[Predicate, bool]


def _rule(body: list[Signed], head: Signed) -> Rule:
    literals = [Literal(Atom(VARIABLE, *predicate), positive) for predicate, positive in (*body, head)]
    return Rule(tuple(literals[:-1]), literals[-1])


def _signed(predicates: Iterator[Predicate], count: int, config: GeneratorConfig, rng: random.Random) -> list[Signed]:
    negation = config.negation if config.world == "open" else 0.0
    return [(next(predicates), rng.random() >= negation) for _ in range(count)]


def _start(
    subject: str, depth: int, predicates: Iterator[Predicate], config: GeneratorConfig, rng: random.Random
) -> tuple[Chain, list[Signed]]:
    """A subject's facts and all rules but the last, and the conditions of that last rule; nothing at depth 0."""
    if depth == 0:
        return Chain(subject, [], []), []
    here = _signed(predicates, config.body, config, rng)
    chain = Chain(subject, [Literal(Atom(subject, *predicate), positive) for predicate, positive in here], [])
    for _ in range(depth - 1):
        after = _signed(predicates, 1, config, rng)
        chain.rules.append(_rule(here, after[0]))
        here = after
    return chain, here


def _conclude(chain: Chain, end: list[Signed], head: Signed) -> Chain:
    """The chain up to `head`: by a rule from the conditions `end`, or at depth 0 as a fact about its subject."""
    if end:
        return Chain(chain.subject, chain.facts, [*chain.rules, _rule(end, head)])
    predicate, positive = head
    return Chain(chain.subject, [Literal(Atom(chain.subject, *predicate), positive)], [])


def _plant_matched(
    draft: Draft,
    subjects: dict[str, str],
    predicates: Iterator[Predicate],
    config: GeneratorConfig,
    rng: random.Random,
) -> None:
    """Chains that end in the predicate, in its negation, and elsewhere (or miss a link on the way to it)."""
    target = next(predicates)
    chains: dict[str, Chain] = {}
    for label, subject in subjects.items():
        chain, end = _start(subject, draft.depth, predicates, config, rng)
        positive = rng.random() < 0.5
        astray = label == "unknown" or (label == "false" and config.world == "closed")
        if not astray:
            head = (target, label == "true")
        elif draft.depth > 1 and rng.random() < config.broken:
            head = (target, positive or config.world == "closed")
            link = rng.randrange(draft.depth - 1)
            missing = _signed(predicates, 1, config, rng)
            if link == draft.depth - 2:
                end = missing
            else:
                after = chain.rules[link + 1]
                chain.rules[link + 1] = Rule(_rule(missing, missing[0]).body, after.head)
        else:
            head = (next(predicates), positive or config.world == "closed")
        chains[label] = _conclude(chain, end, head)
    _add(draft, list(chains.values()))
    draft.groups.append(Group(target, chains))


def shared_rules(config: GeneratorConfig) -> dict[Signed, list[Signed]]:
    """The rules that all theories of shape `shared` draw from: conclusion -> conditions that lead to it.

    A fifth of the attributes are concluded, half of the rules negated; every other attribute is one rule's condition.
    """
    words = [("is", attribute) for attribute in ATTRIBUTES[: config.attributes]]
    heads, conditions = words[: len(words) // 5], words[len(words) // 5 :]
    rules: dict[Signed, list[Signed]] = {}
    for number, condition in enumerate(conditions):
        turn, place = divmod(number, len(heads))
        rules.setdefault((heads[place], turn % 2 == 0), []).append((condition, True))
    return rules


def _plant_shared(draft: Draft, subjects: dict[str, str], config: GeneratorConfig, rng: random.Random) -> None:
    """One rule for each subject out of the shared ones: to the predicate, to its negation, and elsewhere."""
    rules = shared_rules(config)
    target = rng.choice(sorted({head for head, _ in rules}))
    elsewhere = [head for head in rules if head[0] != target]
    heads = {"true": (target, True), "false": (target, False), "unknown": rng.choice(elsewhere)}
    chains: dict[str, Chain] = {}
    for label, subject in subjects.items():
        condition = rng.choice(rules[heads[label]])
        fact = Literal(Atom(subject, *condition[0]))
        chains[label] = Chain(subject, [fact], [_rule([condition], heads[label])])
    _add(draft, list(chains.values()))
    draft.groups.append(Group(target, chains))


def unasked(draft: Draft, config: GeneratorConfig, rng: random.Random) -> Draft:
    """Distractors for a theory of shape `shared`, `config.distractors` in all: one half rules of the shared ones whose
    conditions nobody meets, the other facts about persons whom no question asks about, one each, so that what follows
    about the subjects stays as it is and nothing contradicts itself.
    """
    (group,) = draft.groups
    words = NAMES if draft.entities[0] in NAMES else ANIMALS
    others = [name for name in words[: config.names] if name not in {chain.subject for chain in group.chains.values()}]
    ways = [(condition, head) for head, conditions in shared_rules(config).items() for condition in conditions]
    unmet = [way for way in ways if Atom(VARIABLE, *way[0][0]) not in _conditions(draft)]
    rules = rng.sample(unmet, config.distractors // 2)
    allowed = [condition for condition, _ in ways if condition not in {way[0] for way in rules}]
    persons = rng.sample(others, config.distractors - len(rules))
    facts = [Literal(Atom(person, *rng.choice(allowed)[0])) for person in persons]
    return Draft(draft.entities, facts, [_rule([condition], head) for condition, head in rules], draft.depth, [])


def _conditions(draft: Draft) -> set[Atom]:
    return {condition.atom for rule in draft.rules for condition in rule.body}


def _plant_square(
    draft: Draft, subjects: list[str], predicates: Iterator[Predicate], config: GeneratorConfig, rng: random.Random
) -> None:
    """Three predicates in a Latin square: subject i proves predicate i and the negation of the next one."""
    targets = [next(predicates) for _ in subjects]
    proving: list[Chain] = []
    refuting: list[Chain] = []
    for index, subject in enumerate(subjects):
        chain, end = _start(subject, draft.depth, predicates, config, rng)
        for positive, into in ((True, proving), (False, refuting)):
            head = (targets[(index + (not positive)) % 3], positive)
            into.append(_conclude(chain, end, head))
    _add(draft, [*proving, *refuting])
    for index, target in enumerate(targets):
        chains = {"true": proving[index], "false": refuting[index - 1], "unknown": proving[index - 2]}
        draft.groups.append(Group(target, chains))


def _add(draft: Draft, chains: list[Chain]) -> None:
    draft.facts += dict.fromkeys(fact for chain in chains for fact in chain.facts)
    draft.rules += dict.fromkeys(rule for chain in chains for rule in chain.rules)
