"""English for generated theories: word lists, and sentences for literals and rules."""

from collections.abc import Sequence

from reckoning.proofwriter.theory import VARIABLE, Literal, Rule

NAMES = (
    "Anne Ben Carl Dora Emma Finn Gina Hugo Ivan Jane Karl Lena Mark Nina Otto Paul Rosa Sam Tina Uma Vera Will "
    "Zoe Adam Beth Clara David Ella Frank Grace Helen Iris Jack Kate Leo Mary Nora Oscar Peter Ruth"
).split()
ANIMALS = (
    "cat dog bear lion wolf fox cow pig goat hen duck frog mouse horse sheep owl crow hawk deer seal rabbit tiger "
    "snake camel whale otter badger beaver eagle falcon goose lizard monkey moose parrot pony raven spider turtle zebra"
).split()
ATTRIBUTES = (
    "red blue green big small kind cold young old nice round rough quiet smart white furry sad happy tall short "
    "fast slow warm strong weak rich poor brave calm clean loud dark shy thin proud wise lazy gentle hungry thirsty "
    "tired busy honest polite pretty clever careful cheerful friendly fierce lucky noisy tidy grumpy curious eager "
    "fair free fresh great heavy light soft sweet"
).split()
VERBS = "likes sees chases visits needs helps eats hears finds knows meets follows".split()
PATTERNS = 4

_GENERAL = {"someone": ("someone", "they", "people"), "something": ("something", "it", "things")}


def pronoun_of(entities: Sequence[str]) -> str:
    """The variable that suits these entities: someone for persons, something for animals."""
    return "someone" if entities[0][0].isupper() else "something"


def noun_phrase(entity: str) -> str:
    """`Anne` for a person, `the cat` for an animal."""
    return entity if entity[0].isupper() else f"the {entity}"


def clause(literal: Literal, subject: str | None = None, plural: bool = False) -> str:
    """The statement without capital and full stop; `subject` replaces the literal's own, `plural` if it is one."""
    (own, verb, thing), positive = literal
    subject = subject or noun_phrase(own)
    if verb == "is":
        return f"{subject} {'are' if plural else 'is'}{'' if positive else ' not'} {thing}"
    base = verb.removesuffix("s")
    if positive:
        return f"{subject} {base if plural else verb} {noun_phrase(thing)}"
    return f"{subject} {'do' if plural else 'does'} not {base} {noun_phrase(thing)}"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def fact_text(literal: Literal, pattern: int = 0) -> str:
    """A base fact or a question, e.g. `The cat does not chase the dog.`; pattern 0 is the plain one."""
    frame = ("{}", "it is known that {}", "it is certain that {}", "everyone can see that {}")[pattern % PATTERNS]
    return sentence(frame.format(clause(literal)))


def rule_text(rule: Rule, pronoun: str, pattern: int = 0) -> str:
    """A rule, e.g. `If someone is red and they like Ben then they are big.`; pattern 0 is the plain one.

    Rules about one named entity, and conditions that are no plain attributes, fall back to the if-then form where a
    pattern asks for `Red people are big.`
    """
    body, head = rule
    general = any(literal.atom.subject == VARIABLE for literal in (*body, head))
    subject, again, crowd = _GENERAL[pronoun] if general else ("", "", "")
    plural = again == "they"

    adjectives = general and all(
        literal.positive and literal.atom.verb == "is" and literal.atom.subject == VARIABLE for literal in body
    )
    pattern %= PATTERNS
    if pattern in (1, 2) and adjectives and head.atom.subject == VARIABLE:
        words = f"{', '.join(literal.atom.object for literal in body)} {crowd}"
        return sentence(clause(head, words if pattern == 1 else f"all {words}", plural=True))
    parts: list[str] = []
    for index, literal in enumerate(body):
        before = body[index - 1].atom if index else None
        if before and before[:2] == literal.atom[:2] and literal.atom.verb == "is":
            parts.append(literal.atom.object if literal.positive else f"not {literal.atom.object}")
        elif literal.atom.subject != VARIABLE:
            parts.append(clause(literal))
        else:
            parts.append(clause(literal, again, plural) if index else clause(literal, subject))
    conditions = " and ".join(parts)
    conclusion = clause(head, again, plural) if head.atom.subject == VARIABLE else clause(head)
    if pattern == 3:
        return sentence(f"whenever {conditions}, {conclusion}")
    return sentence(f"if {conditions} then {conclusion}")
