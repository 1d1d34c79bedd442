"""The published way from ProofWriter theories to problems (the authors' notebooks), followed to the letter.

A problem holds one question; its facts are the sentences of one proof, or of the deepest failing chain where the
answer is unknown, and distractors from the same theory. These sets can be solved without reasoning: always
report `reckoning.audit` beside a result on them.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.problems import Problem, Question, content_key, split_by_key, without_full_stop

Record = dict[str, Any]  # one theory in the official release format
Kept = tuple[str, str, tuple[str, ...]]  # answer, name and proof of a question
Alternative = Literal["first", "longest", "shortest", "union", "skip"]
Distractors = Literal["0", "2", "4", "6", "all"]
Order = Literal["shuffled", "relevant_first", "distractors_first"]

LABELS = ("true", "false", "unknown")
DROPPED = frozenset({"a", "an", "the", "fail", "naf"})  # step 2 of the recipe


def read_records(path: Path) -> Iterator[Record]:
    """Yield the theories of a `meta-*.jsonl` file, plain or .gz, one at a time and checked.

    Raises:
        UserError: `path:line` with what is malformed: not JSON, a field missing, an unknown label, a proof that
            names a sentence the theory does not have; or a missing or empty file.
    """
    remedy = "point data.root at the folder of an official release (meta-train.jsonl, meta-dev.jsonl, ...)"
    lines = read_json_lines(path, remedy=remedy, own=False)
    return (_checked(record, f"{path}:{number}") for number, record in lines)


def problems_of(
    record: Record,
    *,
    alternative: Alternative = "first",
    distractors: Distractors = "0",
    order: Order = "shuffled",
    rng: random.Random,
    balance: bool = True,
) -> list[Problem]:
    """The problems of one theory: true, then false, then unknown ones when balanced, else in the order of the file.

    Balanced: with u kept unknown questions, u true and u false ones are drawn with replacement and the u unknown ones
    added, so a theory without any vanishes, duplicates are common (their ids differ), and, because the published
    counts are all multiples of three, a theory without a kept true or false question vanishes too.

    `alternative` chooses among proofs joined by OR, for which the published recipe has no branch: the first, the one
    with most or fewest sentences (the earlier of equals), the sentences of all, or no such question at all.
    The questions are drawn before any distractor, so `distractors` and `order` never change the selection.

    Raises:
        UserError: an option has none of its values, or a proof names a sentence the theory does not have.
    """
    _check_option("data.alternative", alternative, Alternative)
    _check_option("data.distractors", distractors, Distractors)
    _check_option("data.order", order, Order)
    sentences = _sentences(record)
    base_facts = {name.lower() for name in record["triples"]}
    kept: list[Kept] = []
    for name, question in record["questions"].items():
        proof = proof_identifiers(question["proofs"], alternative)
        if stray := [identifier for identifier in proof if identifier not in sentences]:
            raise UserError(_stray(f"theory {record['id']}, question {name}", stray, question["proofs"]))
        if len(proof) > 1:
            kept.append((_label(question), name, proof))

    theory = content_key(without_full_stop(text) for text in sentences.values())
    problems: list[Problem] = []
    copies: dict[str, int] = defaultdict(int)
    for answer, name, proof in _balanced(kept, rng) if balance else kept:
        copies[name] += 1
        suffix = f"#{copies[name]}" if copies[name] > 1 else ""
        identifiers = _with_distractors(proof, sentences, distractors, order, rng)
        question = record["questions"][name]
        problems.append(
            Problem(
                id=f"{record['id']}_{name}{suffix}",
                theory=theory,
                facts=tuple(without_full_stop(sentences[identifier]) for identifier in identifiers),
                kinds=tuple("fact" if identifier in base_facts else "rule" for identifier in identifiers),
                questions=(
                    Question(
                        id=f"{record['id']}_{name}{suffix}",
                        text=without_full_stop(question["question"]),
                        answer=answer,
                        relevant=tuple(identifiers.index(identifier) for identifier in proof),
                        depth=question.get("QDep"),
                    ),
                ),
            )
        )
    return problems


def proof_identifiers(proof: str, alternative: Alternative = "first") -> tuple[str, ...]:
    """The sentences a proof string names, each once, in order of appearance; () if `alternative` skips the proof.

    The recipe makes a set of them, whose order changes from process to process with Python's string hashing; as the
    recited target must be the same in every run, the order of the proof is kept instead.
    """
    if "@" in proof:  # unknown: only the deepest failing chain counts
        proof = proof.partition("=")[2]
    tokens = [token for token in re.findall(r"[()]|\w+", proof) if token.lower() not in DROPPED]
    if alternative == "skip" and "OR" in tokens:
        return ()
    tokens.reverse()
    return _group(tokens, alternative)


def _group(tokens: list[str], alternative: Alternative) -> tuple[str, ...]:
    """Read (from the end of the list) up to the closing bracket of this group, and choose among its alternatives."""
    choices: list[list[str]] = [[]]  # identifiers of each alternative, in order
    while tokens and (token := tokens.pop()) != ")":
        if token == "OR":
            choices.append([])
        else:
            choices[-1] += _group(tokens, alternative) if token == "(" else [token.lower()]
    sets = [tuple(dict.fromkeys(choice)) for choice in choices]
    if alternative == "longest":
        return max(sets, key=lambda choice: len(choice))
    if alternative == "shortest":
        return min(sets, key=lambda choice: len(choice))
    if alternative == "union":
        return tuple(dict.fromkeys(identifier for choice in sets for identifier in choice))
    return sets[0]


def _balanced(kept: Sequence[Kept], rng: random.Random) -> list[Kept]:
    true, false, unknown = ([each for each in kept if each[0] == label] for label in LABELS)
    if not (true and false and unknown):
        return []
    return [*rng.choices(true, k=len(unknown)), *rng.choices(false, k=len(unknown)), *unknown]


def _with_distractors(
    proof: Sequence[str], sentences: Mapping[str, str], level: Distractors, order: Order, rng: random.Random
) -> list[str]:
    """Identifiers of the proof and its distractors (paper, section 4.2) in the order in which the facts are given."""
    rest = [identifier for identifier in sentences if identifier not in proof]
    drawn: list[str] = []
    if len(rest) > 1 and level != "0":
        drawn = rest if level == "all" else list(dict.fromkeys(rng.choices(rest, k=int(level))))
    identifiers = [*drawn, *proof] if order == "distractors_first" else [*proof, *drawn]
    if order == "shuffled":
        rng.shuffle(identifiers)
    return identifiers


def split_by_theory(records: Sequence[Record], shares: Mapping[str, float], seed: int) -> dict[str, list[Record]]:
    """Cut one file without splits: split -> theories, in the order of the file; theories with the same sentences stay
    together, so no knowledge is shared.

    Raises:
        UserError: the shares (`data.shares`) are not positive with sum 1, or a split would stay empty.
    """
    keys = [content_key(map(without_full_stop, _sentences(record).values())) for record in records]
    return split_by_key(records, keys, shares, seed)


def check_published_counts(depth: int, split: str, *, theories: int, examples: int) -> None:
    """Hold the sizes of a balanced set of the full release against the published ones (`counts.yaml`).

    Raises:
        UserError: the sizes differ, or none were published for this depth and split.
    """
    from common import yamltext

    path = Path(__file__).with_name("counts.yaml")
    counts = yamltext.load(path.read_bytes(), path)
    if split not in counts.get(depth, {}):
        known = ", ".join(f"depth-{d} {s}" for d in counts for s in counts[d])
        raise UserError(f"no published counts for depth-{depth} {split}, only for {known}; set data.check_counts=false")
    expected = counts[depth][split]
    found = {"theories": theories, "examples": examples}
    if found != expected:
        differences = ", ".join(f"{key} {found[key]} (published {expected[key]})" for key in expected)
        raise UserError(
            f"depth-{depth} {split}: {differences}; not the full OWA release V2020.12.3, or another recipe; "
            "use the full release or set data.check_counts=false"
        )


def _sentences(record: Record) -> dict[str, str]:
    return {name.lower(): entry["text"] for part in ("triples", "rules") for name, entry in record[part].items()}


def _label(question: Mapping[str, Any]) -> str:
    return str(question["answer"]).lower()


def _stray(where: str, stray: Sequence[str], proof: str) -> str:
    return (
        f"{where}: the proof {proof!r} names {', '.join(stray)}, which the theory does not have; "
        "the line is damaged, remove it or take the original file"
    )


def _check_option(key: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise UserError(f"{key}={value!r} is not known; use one of {', '.join(get_args(allowed))}")


def _checked(record: Record, where: str) -> Record:
    for field in ("id", "triples", "rules", "questions"):
        if field not in record:
            hint = "official ProofWriter lines (meta-*.jsonl) have id, triples, rules and questions"
            raise UserError(f"{where}: field {field!r} is missing, found {sorted(record)}; {hint}")
        if field != "id" and not isinstance(record[field], dict):
            raise UserError(f"{where}: {field} is a {type(record[field]).__name__}, an object is needed")
    for part in ("triples", "rules"):
        for name, entry in record[part].items():
            if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or not entry["text"].strip(" ."):
                raise UserError(f"{where}: {name} has no sentence in 'text': {entry!r}")
    sentences = _sentences(record)
    if not sentences:
        raise UserError(f"{where}: theory {record['id']} is an empty knowledge set; remove the line")
    for name, question in record["questions"].items():
        fields: dict[str, Any] = {"question": str, "answer": (str, bool), "proofs": str}
        for field, kind in fields.items():
            if not isinstance(question, dict) or not isinstance(question.get(field), kind):
                hint = "every question has question, answer and proofs; use the meta-*.jsonl files, which hold proofs"
                raise UserError(f"{where}: question {name} has no {field!r}; {hint}")
        if _label(question) not in LABELS:
            raise UserError(
                f"{where}: question {name}: unknown label {question['answer']!r}, allowed are {list(LABELS)}"
            )
        if stray := [token for token in proof_identifiers(question["proofs"], "union") if token not in sentences]:
            raise UserError(_stray(f"{where}: question {name}", stray, question["proofs"]))
    return record
