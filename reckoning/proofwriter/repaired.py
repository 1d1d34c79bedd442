"""Problems without the shortcuts of the published recipe.

A group of questions shares one knowledge set, predicate and polarity, and has one subject per label, so the questions
differ in their subject only. All subjects are mentioned equally often in the knowledge set and their facts feed
equally many conditions of rules; true and false answers need at least one rule.

In a theory without any negation nothing can be refuted: a positive question is true or unknown there, a negated one
false or unknown. Such groups have two labels, and what a rule can gain from polarity (2/3 of balanced accuracy over
three labels, one half of plain accuracy) is in the nature of these theories; compare with the majority per polarity.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from reckoning.problems import Problem, Question, content_key, without_full_stop
from reckoning.proofwriter import theory as logic
from reckoning.proofwriter.proofs import deepest_failure
from reckoning.proofwriter.theory import VARIABLE, Atom, Closure, Derivation, Literal, Theory
from reckoning.proofwriter.vocabulary import fact_text

ATTEMPTS = 8
Predicate = tuple[str, str]


class Member(NamedTuple):
    """A subject of a group: its label for the positive statement and its proof, if it has one."""

    subject: str
    label: str
    proof: Derivation | None


def repaired(
    record: Mapping[str, Any],
    rng: random.Random,
    *,
    distractors: int | str = 0,
    polarity: str = "both",
    limit: int = 4,
) -> list[Problem]:
    """Up to `limit` problems of one theory, each with all the questions about its knowledge set.

    The knowledge set of a group holds the proofs, for the unknown subject as many facts of its own and rules that
    they feed, then `distractors` (a number, or "all") further sentences, as far as the theory has any that leave
    subjects matched and labels as they are. Labels are those that follow from the knowledge set alone, and equal
    those of the whole theory. `polarity` asks "both" or one "drawn" per group; two-label groups are treated alike.
    Planted theories of the generator are kept whole, with all their groups and all their distractors in one problem.
    [] if no group can be matched. Closed-world theories (by the id) are only used if they are planted.

    Raises:
        UserError: the record is not in the official format.
    """
    if record.get("groups"):
        return [_planted(record, rng)]
    if "CWA" in str(record.get("id", "")):
        return []
    theory = logic.parse_record(record)
    known = logic.closure(theory)
    problems: list[Problem] = []
    used: set[Predicate] = set()
    for predicate, members in _candidates(theory, known, rng):
        if len(problems) == limit:
            break
        if predicate in used:
            continue
        chosen = _matched(theory, predicate, members, distractors, rng)
        if chosen is not None:
            used.add(predicate)
            problems.append(_problem(record, theory, chosen, predicate, members, polarity, len(problems), rng))
    return problems


def _planted(record: Mapping[str, Any], rng: random.Random) -> Problem:
    names = [*record["triples"], *record["rules"]]
    rng.shuffle(names)
    questions = []
    for name in [name for group in record["groups"] for name in group]:
        asked = record["questions"][name]
        relevant = tuple(names.index(identifier) for identifier in asked["relevant"])
        depth = sum(identifier in record["rules"] for identifier in asked["relevant"])
        text = without_full_stop(asked["question"])
        questions.append(Question(f"{record['id']}/{name}", text, str(asked["answer"]).lower(), relevant, depth))
    return _assembled(record, str(record["id"]), names, questions)


def _assembled(record: Mapping[str, Any], name: str, order: Sequence[str], questions: Sequence[Question]) -> Problem:
    sentences = record["triples"] | record["rules"]
    facts = tuple(without_full_stop(sentences[identifier]["text"]) for identifier in order)
    kinds = tuple("fact" if identifier in record["triples"] else "rule" for identifier in order)
    whole = (without_full_stop(entry["text"]) for entry in sentences.values())
    return Problem(name, content_key(whole), facts, kinds, tuple(questions))


def _candidates(theory: Theory, known: Closure, rng: random.Random) -> Iterator[tuple[Predicate, tuple[Member, ...]]]:
    """Predicates with one subject per label, true and false ones of equal depth first; random order otherwise."""
    subjects = list(dict.fromkeys(fact.atom.subject for fact in theory.facts.values()))
    heads = list(dict.fromkeys(rule.head.atom[1:] for rule in theory.rules.values()))
    has_negation = any(not rule.head.positive for rule in theory.rules.values())
    found: list[tuple[int, float, Predicate, tuple[Member, ...]]] = []
    for predicate in heads:
        if VARIABLE in predicate:
            continue
        sides: dict[str, list[Member]] = {"true": [], "false": [], "unknown": []}
        for subject in subjects:
            literal = Literal(Atom(subject, *predicate))
            label = logic.label(literal, known)
            proof = known.get(literal) or known.get(logic.negated(literal))
            if proof is None or proof.depth > 0:
                sides[label].append(Member(subject, label, proof))
        if has_negation and not sides["false"]:
            continue
        for members in product(*(side for side in sides.values() if side)):
            if len(members) < 2 or {members[0].label, members[-1].label} != {"true", "unknown"}:
                continue
            depths = {member.proof.depth for member in members if member.proof}
            found.append((max(depths) - min(depths), rng.random(), predicate, members))
    for _, _, predicate, members in sorted(found, key=lambda item: item[:2]):
        yield predicate, members


def _matched(
    theory: Theory, predicate: Predicate, members: Sequence[Member], distractors: int | str, rng: random.Random
) -> list[str] | None:
    """Identifiers of a knowledge set in which the members are matched, None if none was found."""
    everything = [*theory.facts, *theory.rules]
    needed = {name for member in members if member.proof for name in member.proof.identifiers}
    proofs = [name for name in everything if name in needed]  # in an order that does not change between processes
    if distractors == "all":
        return everything if _fits(theory, everything, predicate, members) else None
    for _ in range(ATTEMPTS):
        chosen = list(proofs)
        if not _fill_facts(theory, chosen, predicate, members, rng) or not _fill_rules(theory, chosen, members, rng):
            continue
        if _fits(theory, chosen, predicate, members):
            wanted = len(chosen) + int(distractors)
            rest = [name for name in everything if name not in chosen]
            rng.shuffle(rest)
            for name in rest:
                if len(chosen) < wanted and _fits(theory, [*chosen, name], predicate, members):
                    chosen.append(name)
            return chosen
    return None


def _profile(theory: Theory, chosen: Sequence[str], subject: str) -> tuple[int, int, int]:
    """What a subject looks like without reasoning: mentions, own facts, conditions of rules that its facts meet."""
    part = theory.restricted(set(chosen))
    own = {fact for fact in part.facts.values() if fact.atom.subject == subject}
    literals = [*part.facts.values(), *(x for rule in part.rules.values() for x in (*rule.body, rule.head))]
    mentions = sum(subject in (literal.atom.subject, literal.atom.object) for literal in literals)
    fed = sum(logic.ground(x, subject) in own for rule in part.rules.values() for x in rule.body)
    return mentions, len(own), fed


def _fits(theory: Theory, chosen: Sequence[str], predicate: Predicate, members: Sequence[Member]) -> bool:
    """Whether the members look alike and their labels follow from the chosen sentences, with a rule each."""
    profiles = {_profile(theory, chosen, member.subject) for member in members}
    if len(profiles) != 1 or 0 in next(iter(profiles)):
        return False
    part = theory.restricted(set(chosen))
    known = logic.closure(part)
    for member in members:
        literal = Literal(Atom(member.subject, *predicate))
        proof = known.get(literal) or known.get(logic.negated(literal))
        if logic.label(literal, known) != member.label or (proof is not None and proof.depth == 0):
            return False
    return True


def _fill_facts(
    theory: Theory, chosen: list[str], predicate: Predicate, members: Sequence[Member], rng: random.Random
) -> bool:
    """Add facts until every member has as many as the one with most, preferring facts that some chosen rule uses."""

    def own(names: Sequence[str], subject: str) -> list[str]:
        return [name for name in names if name in theory.facts and theory.facts[name].atom.subject == subject]

    used = {literal.atom[1:] for name in chosen if name in theory.rules for literal in theory.rules[name].body}
    wanted = max(len(own(chosen, member.subject)) for member in members)
    for member in members:
        spare = [name for name in own(list(theory.facts), member.subject) if name not in chosen]
        spare = [name for name in spare if theory.facts[name].atom[1:] != predicate]
        rng.shuffle(spare)
        spare.sort(key=lambda name: theory.facts[name].atom[1:] not in used)
        missing = wanted - len(own(chosen, member.subject))
        if missing > len(spare):
            return False
        chosen += spare[:missing]
    return True


def _fill_rules(theory: Theory, chosen: list[str], members: Sequence[Member], rng: random.Random) -> bool:
    """Add rules until the facts of all members meet equally many conditions."""
    spare = [name for name in theory.rules if name not in chosen]
    rng.shuffle(spare)
    while True:
        fed = {member.subject: _profile(theory, chosen, member.subject)[2] for member in members}
        most = max(fed.values())
        if min(fed.values()) == most:
            return True
        for name in spare:
            after = {subject: _profile(theory, [*chosen, name], subject)[2] for subject in fed}
            if after != fed and max(after.values()) == most:  # helps a member that lags, and nobody else
                chosen.append(name)
                spare.remove(name)
                break
        else:
            return False


def _problem(
    record: Mapping[str, Any],
    theory: Theory,
    chosen: list[str],
    predicate: Predicate,
    members: Sequence[Member],
    polarity: str,
    number: int,
    rng: random.Random,
) -> Problem:
    order = list(chosen)
    rng.shuffle(order)
    part = theory.restricted(set(chosen))
    known = logic.closure(part)
    proofs = {m.label: known.get(Literal(Atom(m.subject, *predicate), m.label == "true")) for m in members}
    depth = max(proof.depth for proof in proofs.values() if proof)
    size = min(len(proof.identifiers) for proof in proofs.values() if proof)
    name = f"{record['id']}/{number}"
    questions: list[Question] = []
    for positive in (True, False) if polarity == "both" else (rng.random() < 0.5,):
        for member in rng.sample(list(members), len(members)):
            literal = Literal(Atom(member.subject, *predicate), positive)
            proof = proofs[member.label]
            recited = recitation(part, proof) if proof else _attempt(part, known, literal, size)
            questions.append(
                Question(
                    id=f"{name}/{len(questions)}",
                    text=without_full_stop(fact_text(literal)),
                    answer=logic.label(literal, known),
                    relevant=tuple(order.index(identifier) for identifier in recited),
                    depth=proof.depth if proof else depth,
                )
            )
    return _assembled(record, name, order, questions)


def recitation(theory: Theory, proof: Derivation) -> list[str]:
    """The sentences of a proof, facts first, then rules in the order in which they are applied."""
    steps = list(dict.fromkeys(step.source for step in proof.steps()))
    return [step for step in steps if step in theory.facts] + [step for step in steps if step in theory.rules]


def _attempt(theory: Theory, known: Closure, literal: Literal, size: int) -> list[str]:
    """For an unknown statement: its subject's facts and the rules they feed, forwards, then its failing chain.

    At most `size` sentences, at least one of them a rule: as many as the shortest proof of the group.
    """
    subject = literal.atom.subject
    facts = [name for name, fact in theory.facts.items() if fact.atom.subject == subject]
    fired = [d for d in known.values() if d.literal.atom.subject == subject and d.depth]
    fired.sort(key=lambda derivation: derivation.depth)
    rules = [step.source for d in fired for step in d.steps() if step.source in theory.rules]
    own = {theory.facts[name] for name in facts}
    rules += [
        name
        for name, rule in theory.rules.items()
        if any(logic.ground(condition, subject) in own for condition in rule.body)
    ]
    rules += reversed(deepest_failure(theory, known, Literal(literal.atom)))
    kept = list(dict.fromkeys(rules))
    share = max(1, size - len(facts))
    return [*facts[: size - min(share, len(kept))], *kept[:share]]
