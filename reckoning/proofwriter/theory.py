"""Theories in the official ProofWriter form and a forward-chaining reasoner.

Open world: a literal is true if it is proven, false if its negation is, unknown otherwise; a negated condition of a
rule must itself be proven. Closed world: what cannot be proven is false, and a negated condition holds if its atom
cannot be proven (negation as failure, evaluated stratum by stratum).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from common.errors import UserError

VARIABLE = "someone"
VARIABLES = frozenset({"someone", "something", "they", "it"})
NAF = "NAF"
T = TypeVar("T")

_LITERAL = re.compile(r'\("([^"]+)" "([^"]+)" "([^"]+)" "([-+~])"\)')
_FACT_SHAPE = re.compile(r"\s*L\s*")
_RULE_SHAPE = re.compile(r"\s*\(\s*\(\s*(L\s*)+\)\s*->\s*L\s*\)\s*")


class Atom(NamedTuple):
    """A statement without polarity. `subject` or `object` is `VARIABLE` in general rules."""

    subject: str
    verb: str
    object: str


class Literal(NamedTuple):
    """A statement or its negation."""

    atom: Atom
    positive: bool = True


class Rule(NamedTuple):
    """If every literal of the body holds, the head holds; all variables of one rule are the same one."""

    body: tuple[Literal, ...]
    head: Literal


@dataclass(frozen=True)
class Theory:
    """Facts and rules by identifier (triple1, rule1), in the order of the file."""

    facts: Mapping[str, Literal]
    rules: Mapping[str, Rule]

    @property
    def entities(self) -> tuple[str, ...]:
        """Everything a variable can stand for, in order of appearance."""
        seen: dict[str, None] = {}
        rules = (literal for rule in self.rules.values() for literal in (*rule.body, rule.head))
        for atom, _ in (*self.facts.values(), *rules):
            seen[atom.subject] = None
            if atom.verb != "is":
                seen[atom.object] = None
        seen.pop(VARIABLE, None)
        return tuple(seen)

    def restricted(self, identifiers: frozenset[str] | set[str]) -> "Theory":
        """The part of the theory that these identifiers name."""
        return Theory(
            {name: fact for name, fact in self.facts.items() if name in identifiers},
            {name: rule for name, rule in self.rules.items() if name in identifiers},
        )


@dataclass(frozen=True, slots=True)
class Derivation:
    """One proof of a literal: the fact or rule that gives it and the proofs of that rule's conditions.

    `depth` counts rule applications as ProofWriter's QDep: 0 for a fact, 1 + the deepest condition for a rule.
    """

    literal: Literal
    source: str
    depth: int = 0
    body: tuple["Derivation", ...] = ()
    identifiers: frozenset[str] = field(default=frozenset(), compare=False)

    def steps(self) -> Iterator["Derivation"]:
        """All steps of the proof, conditions before conclusions; shared steps come as often as they are used."""
        for condition in self.body:
            yield from condition.steps()
        yield self

    def __str__(self) -> str:
        if not self.body:
            return self.source
        return f"(({' '.join(map(str, self.body))}) -> {self.source})"


Closure = dict[Literal, Derivation]


def negated(literal: Literal) -> Literal:
    """The opposite literal."""
    return Literal(literal.atom, not literal.positive)


def ground(literal: Literal, entity: str) -> Literal:
    """The literal with its variable, if it has one, replaced by `entity`."""
    (subject, verb, thing), positive = literal
    if subject == VARIABLE:
        subject = entity
    if thing == VARIABLE:
        thing = entity
    return Literal(Atom(subject, verb, thing), positive)


@lru_cache(maxsize=1 << 16)
def parse_literals(representation: str) -> tuple[tuple[Literal, ...], str]:
    """The literals of a representation, and its shape with `L` for each of them."""
    literals = tuple(
        Literal(Atom(*(VARIABLE if term in VARIABLES else term for term in terms)), sign == "+")
        for *terms, sign in _LITERAL.findall(representation)
    )
    return literals, _LITERAL.sub("L", representation)


def parse_fact(representation: str) -> Literal:
    """A fact such as `("cat" "eats" "squirrel" "+")`; "~" and "-" both negate. ValueError if it is none."""
    literals, shape = parse_literals(representation)
    if not _FACT_SHAPE.fullmatch(shape):
        raise ValueError('expected ("subject" "verb" "object" "+"), with "~" or "-" for a negation')
    return literals[0]


def parse_rule(representation: str) -> Rule:
    """A rule such as `((("someone" "is" "red" "+")) -> ("someone" "is" "big" "~"))`. ValueError if it is none."""
    literals, shape = parse_literals(representation)
    if not _RULE_SHAPE.fullmatch(shape):
        raise ValueError("expected ((literal ...) -> literal)")
    return Rule(literals[:-1], literals[-1])


def parse_record(record: Mapping[str, Any]) -> Theory:
    """The theory of one line of an official file, read from its `representation` strings.

    Raises:
        UserError: names the theory and the field that is missing or cannot be read.
    """
    name = record.get("id", "without id")

    def entries(part: str, parse: Callable[[str], T]) -> dict[str, T]:
        if not isinstance(record.get(part), Mapping):
            raise UserError(f"theory {name}: field '{part}' is missing; use the official meta-*.jsonl with proofs")
        parsed: dict[str, T] = {}
        for identifier, entry in record[part].items():
            representation = entry.get("representation") if isinstance(entry, Mapping) else None
            try:
                if not isinstance(representation, str):
                    raise ValueError("expected a string")
                parsed[identifier] = parse(representation)
            except ValueError as error:
                where = f"theory {name}: {part}.{identifier}.representation={representation!r}"
                raise UserError(f"{where}: {error}; correct the line or remove it") from None
        return parsed

    return Theory(entries("triples", parse_fact), entries("rules", parse_rule))


def closure(theory: Theory, open_world: bool = True) -> Closure:
    """All provable literals, each with its proof of least depth and, at that depth, of fewest sentences.

    The sentences of a proof are counted once each, over proofs already chosen for the conditions; equal counts go to
    the rule and the entity that come first in the theory.

    Raises:
        ValueError: closed world and a negation that depends on itself (the theory has no strata).
    """
    known: Closure = {}
    for identifier, literal in theory.facts.items():
        known.setdefault(literal, Derivation(literal, identifier, identifiers=frozenset((identifier,))))
    entities = theory.entities
    for stratum in [theory.rules] if open_world else strata(theory.rules):
        while True:
            found: Closure = {}
            least = 0
            for identifier, rule in stratum.items():
                for derivation in applications(identifier, rule, known, entities, open_world):
                    literal = derivation.literal
                    if literal in known or (least and derivation.depth > least):
                        continue
                    if derivation.depth < least or not least:  # shallowest first, so that no depth is ever revised
                        found, least = {}, derivation.depth
                    rival = found.get(literal)
                    if rival is None or len(derivation.identifiers) < len(rival.identifiers):
                        found[literal] = derivation
            if not found:
                break
            known.update(found)
    return known


def applications(
    identifier: str, rule: Rule, known: Closure, entities: tuple[str, ...], open_world: bool
) -> Iterator[Derivation]:
    """Every way in which the rule fires on what is known."""
    body, head = rule
    general = any(VARIABLE in (atom.subject, atom.object) for atom, _ in (*body, head))
    for entity in entities if general else ("",):
        conditions: list[Derivation] = []
        for condition in body:
            literal = ground(condition, entity) if general else condition
            derivation = known.get(literal)
            if derivation is None:
                if not holds(literal, known, open_world):
                    break
                derivation = Derivation(literal, NAF)
            conditions.append(derivation)
        else:
            depth = 1 + max(condition.depth for condition in conditions)
            identifiers = frozenset((identifier,)).union(*(condition.identifiers for condition in conditions))
            yield Derivation(
                ground(head, entity) if general else head, identifier, depth, tuple(conditions), identifiers
            )


def holds(literal: Literal, known: Closure, open_world: bool) -> bool:
    """Whether a condition is met: proven, or in a closed world the negation of what cannot be proven."""
    return literal in known or not (open_world or literal.positive or negated(literal) in known)


def strata(rules: Mapping[str, Rule]) -> list[dict[str, Rule]]:
    """The rules in groups so that what a group negates is settled by earlier groups.

    Raises:
        ValueError: there is no such order.
    """
    level = {rule.head.atom[1:]: 0 for rule in rules.values()}
    for _ in range(len(level) + 1):
        changed = False
        for body, head in rules.values():
            least = max((level.get(atom[1:], -1) + (not positive) for atom, positive in body), default=0)
            if level[head.atom[1:]] < least:
                level[head.atom[1:]] = least
                changed = True
        if not changed:
            groups: dict[int, dict[str, Rule]] = {}
            for name, rule in rules.items():
                groups.setdefault(level[rule.head.atom[1:]], {})[name] = rule
            return [groups[key] for key in sorted(groups)]
    raise ValueError("a negated condition depends on itself: the rules have no strata")


def label(literal: Literal, known: Closure, open_world: bool = True) -> str:
    """true, false or unknown (open world only) of a statement, given all that is provable."""
    if literal in known:
        return "true"
    if negated(literal) in known:
        return "false"
    if open_world:
        return "unknown"
    return "false" if literal.positive else "true"


def is_consistent(known: Closure) -> bool:
    """Whether nothing is proven together with its negation."""
    return not any(not literal.positive and negated(literal) in known for literal in known)
