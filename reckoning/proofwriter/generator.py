"""Theories made to order, written as lines of an official ProofWriter file.

`generate` is a pure function of its arguments. A theory belongs to the split that the SHA-256 of its sentences says,
so no theory can be in two splits, whatever the seed or the settings. Distractors of shape `shared` come after that and
from random numbers of their own: a theory is in the same split, and asked the same, with them and without.
"""

import hashlib
import random
from collections.abc import Iterable
from typing import Any, TypeVar

from common.errors import UserError
from reckoning.proofwriter import theory as logic
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.planted import Draft, Group, plant, unasked
from reckoning.proofwriter.proofs import deepest_failure, failure_text, proof_text, proofs_of
from reckoning.proofwriter.theory import VARIABLE, Atom, Closure, Literal, Rule, Theory, negated
from reckoning.proofwriter.vocabulary import ANIMALS, ATTRIBUTES, NAMES, VERBS, fact_text, pronoun_of, rule_text

BUCKETS = {"train": range(0, 12), "pretrain": range(0, 12), "dev": range(12, 14), "test": range(14, 16)}
ATTEMPTS = 1_000
ANSWERS = {"true": True, "false": False, "unknown": "Unknown"}

Record = dict[str, Any]
Sentence = TypeVar("Sentence", Literal, Rule)


def generate(config: GeneratorConfig, seed: int, split: str, index: int) -> Record:
    """The theory number `index` of a split: id, maxD, NFact, NRule, theory, triples, rules and questions.

    Planted shapes add `groups` (lists of question names that differ in their subject only) and, in each question,
    `relevant`: the sentences to recite, for an unknown answer those that its subject's facts lead to.

    Raises:
        UserError: an unknown split, or settings for which no theory was found.
    """
    if split not in BUCKETS:
        raise UserError(f"split={split!r}: use one of {', '.join(BUCKETS)}")
    world = "OWA" if config.world == "open" else "CWA"
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed}/{split}/{index}/{attempt}")
        draft = plant(config, rng) if config.shape != "random" else _scatter(config, rng)
        record = _written(draft, config, rng)
        if bucket(_sentences(record)) not in BUCKETS[split]:
            continue
        if config.shape == "shared" and config.distractors:
            _distract(record, draft, config, random.Random(f"{seed}/{split}/{index}/{attempt}/distractors"))
        record["id"] = f"{config.shape.capitalize()}-{world}-D{draft.depth}-{seed}-{split}-{index}"
        if _questioned(record, draft, config, rng):
            return record
    raise UserError(
        f"generator: no theory of shape={config.shape}, depths={config.depths} in {ATTEMPTS} attempts; "
        "use more generator.rules or generator.facts, less generator.negation, or smaller depths"
    )


def bucket(sentences: Iterable[str]) -> int:
    """One of 16 buckets, by the sentences whatever their order; `BUCKETS` gives them to splits."""
    return hashlib.sha256("\n".join(sorted(sentences)).encode()).digest()[0] % 16


def _sentences(record: Record) -> list[str]:
    return [entry["text"] for part in ("triples", "rules") for entry in record[part].values()]


def _written(draft: Draft, config: GeneratorConfig, rng: random.Random) -> Record:
    """The draft in English and in logic, facts and rules numbered in random order."""
    rng.shuffle(draft.facts)
    rng.shuffle(draft.rules)
    pronoun = pronoun_of(draft.entities)
    minus = "~" if config.world == "open" else "-"

    def form(literal: Literal) -> str:
        subject = pronoun if literal.atom.subject == VARIABLE else literal.atom.subject
        return f'("{subject}" "{literal.atom.verb}" "{literal.atom.object}" "{"+" if literal.positive else minus}")'

    triples = {
        f"triple{number}": {"text": fact_text(fact, rng.randrange(config.paraphrases)), "representation": form(fact)}
        for number, fact in enumerate(draft.facts, 1)
    }
    rules = {
        f"rule{number}": {
            "text": rule_text(rule, pronoun, rng.randrange(config.paraphrases)),
            "representation": f"(({' '.join(map(form, rule.body))}) -> {form(rule.head)})",
        }
        for number, rule in enumerate(draft.rules, 1)
    }
    record: Record = {"id": "", "maxD": draft.depth, "NFact": len(triples), "NRule": len(rules), "theory": ""}
    record |= {"triples": triples, "rules": rules, "questions": {}}
    texts = _sentences(record)
    rng.shuffle(texts)
    record["theory"] = " ".join(texts)
    return record


def _distract(record: Record, draft: Draft, config: GeneratorConfig, rng: random.Random) -> None:
    """Add distractors to a written theory and number its sentences anew, in random order."""
    more = unasked(draft, config, rng)
    written = _written(more, config, rng)  # which brings the sentences of `more` into their order there

    def entries(part: str) -> list[dict[str, str]]:
        return [*record[part].values(), *written[part].values()]

    draft.facts, record["triples"] = _mixed("triple", [*draft.facts, *more.facts], entries("triples"), rng)
    draft.rules, record["rules"] = _mixed("rule", [*draft.rules, *more.rules], entries("rules"), rng)
    texts = _sentences(record)
    rng.shuffle(texts)
    record |= {"NFact": len(draft.facts), "NRule": len(draft.rules), "theory": " ".join(texts)}


def _mixed(
    name: str, sentences: list[Sentence], entries: list[dict[str, str]], rng: random.Random
) -> tuple[list[Sentence], dict[str, dict[str, str]]]:
    """The sentences and what is written of them, both in one random order."""
    order = rng.sample(range(len(sentences)), len(sentences))
    numbered = {f"{name}{number}": entries[index] for number, index in enumerate(order, 1)}
    return [sentences[index] for index in order], numbered


def _questioned(record: Record, draft: Draft, config: GeneratorConfig, rng: random.Random) -> bool:
    """Add the questions; False if the theory contradicts itself or misses the depth it was drawn for."""
    theory = _numbered(draft.facts, draft.rules)
    open_world = config.world == "open"
    known = _consistent_closure(theory, open_world)
    if known is None:
        return False
    asker = _Asker(theory, known, open_world, draft)
    if draft.groups:
        _ask_groups(record, asker, draft.groups, config, rng)
        return True
    if max(derivation.depth for derivation in known.values()) != draft.depth:
        return False
    literals = _choose(asker, draft, config.questions, rng)
    record["questions"] = {f"Q{number}": asker.question(literal) for number, literal in enumerate(literals, 1)}
    return True


def _numbered(facts: Iterable[Literal], rules: Iterable[Rule]) -> Theory:
    return Theory(
        {f"triple{number}": fact for number, fact in enumerate(facts, 1)},
        {f"rule{number}": rule for number, rule in enumerate(rules, 1)},
    )


def _consistent_closure(theory: Theory, open_world: bool) -> Closure | None:
    try:
        known = logic.closure(theory, open_world)
    except ValueError:  # no strata
        return None
    return known if logic.is_consistent(known) else None


class _Asker:
    """Writes questions about one theory in the official form."""

    def __init__(self, theory: Theory, known: Closure, open_world: bool, draft: Draft) -> None:
        self.theory, self.known, self.open_world, self.draft = theory, known, open_world, draft

    def chain(self, literal: Literal) -> tuple[str, ...]:
        return deepest_failure(self.theory, self.known, Literal(literal.atom), self.open_world)

    def question(self, literal: Literal) -> Record:
        answer = logic.label(literal, self.known, self.open_world)
        proven = next((side for side in (literal, negated(literal)) if side in self.known), None)
        text = fact_text(literal)
        if proven is not None:
            proofs = proofs_of(self.theory, self.known, proven, self.open_world)
            depth, length = proofs[0].depth, sum(1 for _ in proofs[0].steps())
            written, strategy = proof_text(proofs), "proof" if proven == literal else "inv-proof"
        else:
            chain = self.chain(literal)
            depth, length = len(chain), ""  # type: ignore[assignment]
            written = failure_text(fact_text(Literal(literal.atom)), chain)
            strategy = ("" if literal.positive else "inv-") + ("rconc" if chain else "random")
        sign = "+" if literal.positive else "~" if self.open_world else "-"
        return {
            "question": text,
            "answer": ANSWERS[answer],
            "QDep": depth,
            "QLen": length,
            "strategy": strategy,
            "proofs": written,
            "representation": f'("{literal.atom.subject}" "{literal.atom.verb}" "{literal.atom.object}" "{sign}")',
        }


def _ask_groups(
    record: Record, asker: _Asker, groups: list[Group], config: GeneratorConfig, rng: random.Random
) -> None:
    names = {fact: f"triple{number}" for number, fact in enumerate(asker.draft.facts, 1)}
    rules = {rule: f"rule{number}" for number, rule in enumerate(asker.draft.rules, 1)}
    record["groups"] = []
    for predicate, chains in groups:
        both = [True, False]
        for positive in both if config.polarity == "both" else [rng.choice(both)]:
            group = []
            for label, chain in rng.sample(list(chains.items()), len(chains)):
                name = f"Q{len(record['questions']) + 1}"
                question = asker.question(Literal(Atom(chain.subject, *predicate), positive))
                swapped = {"true": "false", "false": "true"}.get(label, label)
                if question["answer"] != ANSWERS[label if positive else swapped]:
                    raise ValueError(f"{record['id']} {name}: planted {label}, derived {question['answer']}")
                question["relevant"] = [*(names[fact] for fact in chain.facts), *(rules[rule] for rule in chain.rules)]
                record["questions"][name] = question
                group.append(name)
            record["groups"].append(group)


def _scatter(config: GeneratorConfig, rng: random.Random) -> Draft:
    """A random theory, ProofWriter's kind: a chain of the wanted depth, then any rules that leave it so.

    The chain itself may fail; that shows when the questions are asked.
    """
    depth = rng.choice(config.depths)
    words = ANIMALS if rng.random() < config.animals else NAMES
    entities = rng.sample(words[: config.names], config.entities)
    closed = config.world == "closed"
    wanted = max(6, 2 * config.body + depth + 1)
    attributes = rng.sample(ATTRIBUTES[: config.attributes], min(wanted, config.attributes))
    verbs = rng.sample(VERBS[: config.verbs], min(3, config.verbs))

    def predicate(other_than: str = "") -> tuple[str, str]:
        things = [entity for entity in entities if entity != other_than]
        if things and rng.random() < config.relations:
            return rng.choice(verbs), rng.choice(things)
        return "is", rng.choice(attributes)

    def sign(allowed: bool) -> bool:
        return not allowed or rng.random() >= config.negation

    facts: dict[Literal, None] = {}
    for _ in range(20 * config.facts):  # repeats are dropped, so that the last ones may not be found
        if len(facts) == config.facts:
            break
        subject = rng.choice(entities)
        fact = Literal(Atom(subject, *predicate(subject)), sign(not closed))
        if negated(fact) not in facts:
            facts[fact] = None

    rules: dict[Rule, None] = {}
    hero = rng.choice([fact.atom.subject for fact in facts])
    held = [fact for fact in facts if fact.atom.subject == hero]
    touched = {literal.atom for literal in held}
    last = rng.choice(held)
    while len(rules) < depth:
        heads = (Literal(Atom(hero, *predicate(hero)), sign(not closed)) for _ in range(10))
        head = next((head for head in heads if head.atom not in touched), None)
        if head is None:
            break  # a shorter chain: the depth is checked once the theory is complete
        others = [literal for literal in held if literal != last]
        extra = rng.sample(others, min(len(others), rng.randint(0, config.body - 1)))
        body = rng.sample([last, *extra], 1 + len(extra))
        rules[_general(Rule(tuple(body), head), hero, rng.random() >= config.specific)] = None
        touched.add(head.atom)
        held.append(head)
        last = head
    for _ in range(20 * config.rules):
        if len(rules) >= config.rules:
            break
        subject = rng.choice(entities)
        atoms = list(dict.fromkeys(Atom(subject, *predicate(subject)) for _ in range(rng.randint(1, config.body))))
        head = Literal(Atom(subject, *predicate(subject)), sign(not closed))
        if head.atom in atoms:
            continue
        rule = Rule(tuple(Literal(atom, sign(True)) for atom in atoms), head)
        more = rules | {_general(rule, subject, rng.random() >= config.specific): None}
        known = _consistent_closure(_numbered(facts, more), not closed)
        if known is not None and max(derivation.depth for derivation in known.values()) <= depth:
            rules = more
    return Draft(entities, list(facts), list(rules), depth, [])


def _general(rule: Rule, entity: str, general: bool) -> Rule:
    """The rule about everyone that says of `entity` what this one says."""
    if not general:
        return rule

    def widened(literal: Literal) -> Literal:
        return Literal(literal.atom._replace(subject=VARIABLE), literal.positive)

    return Rule(tuple(widened(literal) for literal in rule.body), widened(rule.head))


def _choose(asker: _Asker, draft: Draft, limit: int, rng: random.Random) -> list[Literal]:
    """Per depth a proven statement and the opposite of one; as many statements that nothing decides, half of them
    with a failing chain, half of them negated."""
    levels: dict[int, list[Literal]] = {level: [] for level in range(draft.depth, -1, -1)}
    for literal, derivation in asker.known.items():
        levels[derivation.depth].append(literal)
    proven: list[Literal] = []
    for level in levels.values():
        pair = rng.sample(level, min(2, len(level)))
        proven += [pair[0], negated(pair[-1])]
    predicates = {literal.atom[1:]: None for literal in (*draft.facts, *(rule.head for rule in draft.rules))}
    atoms = [Atom(entity, *predicate) for entity in draft.entities for predicate in predicates]
    atoms = [atom for atom in atoms if Literal(atom) not in asker.known and Literal(atom, False) not in asker.known]
    rng.shuffle(atoms)
    chained: list[Atom] = []
    plain: list[Atom] = []
    for atom in atoms:
        if len(chained) <= draft.depth or len(plain) <= draft.depth:
            if atom.subject != atom.object:
                (chained if asker.chain(Literal(atom)) else plain).append(atom)
    undecided = [
        Literal(atom, bool((number + rng.randrange(2)) % 2))
        for pair in zip(chained, plain, strict=False)
        for number, atom in enumerate(pair)
    ]
    half = limit - limit // 2
    return [*proven[:half], *undecided[: limit - len(proven[:half])]]
