"""Proofs and failing chains in the official notation of ProofWriter."""

from reckoning.proofwriter.theory import (
    VARIABLE,
    Closure,
    Derivation,
    Literal,
    Theory,
    applications,
    ground,
    holds,
)


def proofs_of(theory: Theory, known: Closure, literal: Literal, open_world: bool = True) -> list[Derivation]:
    """The proof that `known` holds, then every other last step, each over the chosen proofs of its conditions."""
    if literal not in known:
        return []
    chosen = known[literal]
    entities = theory.entities
    others = [
        derivation
        for identifier, rule in theory.rules.items()
        if rule.head.atom.verb == literal.atom.verb and rule.head.positive == literal.positive
        for derivation in applications(identifier, rule, known, entities, open_world)
        if derivation.literal == literal and derivation != chosen
    ]
    return [chosen, *(d for d in others if not any(step.literal == literal for b in d.body for step in b.steps()))]


def proof_text(proofs: list[Derivation]) -> str:
    """Proofs in the official notation, e.g. `[(((triple8 triple9) -> rule3))]`; several are joined by OR."""
    return f"[({' OR '.join(map(str, proofs))})]"


def deepest_failure(theory: Theory, known: Closure, goal: Literal, open_world: bool = True) -> tuple[str, ...]:
    """The longest chain of rules, goal first, each concluding the first unproven condition of the one before it.

    A chain ends where that condition has no rule, or where a rule asks for a goal that is already open; () if no
    rule concludes the goal at all. This is how most chains of the official files come about, not all of them.
    """

    def search(goal: Literal, open_goals: frozenset[Literal]) -> tuple[str, ...]:
        longest: tuple[str, ...] = ()
        for identifier, rule in theory.rules.items():
            entity = goal.atom.object if rule.head.atom.object == VARIABLE else goal.atom.subject
            if ground(rule.head, entity) != goal:
                continue
            conditions = [ground(condition, entity) for condition in rule.body]
            chain: tuple[str, ...] = ()
            if open_goals.isdisjoint(conditions):
                unproven = next((c for c in conditions if not holds(c, known, open_world)), None)
                chain = search(unproven, open_goals | {unproven}) if unproven else ()
            longest = max(longest, (identifier, *chain), key=len)
        return longest

    return search(goal, frozenset((goal,)))


def failure_text(sentence: str, chain: tuple[str, ...]) -> str:
    """A failing chain in the official notation; `sentence` is the positive statement, with its full stop."""
    return f"[@{len(chain)}: {sentence}[CWA. Example of deepest failure = ({' <- '.join((*chain, 'FAIL'))})]]"
