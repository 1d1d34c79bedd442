"""Generated theories: every label and proof checked from the sentences alone; splits, determinism, refusals."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.problems import content_key
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import BUCKETS, bucket, generate
from reckoning.proofwriter.theory import Literal, Rule, closure, parse_fact, parse_literals, parse_record
from tests.reckoning.english_logic import Lit, consequences, read, truth

ALL = GeneratorConfig(relations=0.3, negation=0.25, animals=0.5, body=2, paraphrases=4)
RICH: dict[str, Any] = vars(ALL) | {"distractors": 4, "attributes": 64}
CONFIGS = {
    "matched": GeneratorConfig(),
    "matched, all": GeneratorConfig(**RICH | {"depths": [1, 2, 3], "groups": 2, "broken": 0.5}),
    "matched, closed": GeneratorConfig(**RICH | {"depths": [1, 2], "world": "closed", "broken": 0.5}),
    "stated": GeneratorConfig(depths=[0]),
    "square, stated": GeneratorConfig(shape="square", depths=[0]),
    "shared": GeneratorConfig(shape="shared", names=12, attributes=15),
    "square": GeneratorConfig(shape="square", polarity="drawn"),
    "square, all": GeneratorConfig(**RICH | {"shape": "square", "depths": [1, 3], "groups": 2}),
    "random": GeneratorConfig(shape="random", depths=[0, 1, 2], body=2, facts=6),
    "random, all": GeneratorConfig(**RICH | {"shape": "random", "depths": [0, 1, 2, 3], "specific": 0.2, "rules": 7}),
    "random, deep": GeneratorConfig(**RICH | {"shape": "random", "depths": [5], "rules": 8}),
    "random, closed": GeneratorConfig(**RICH | {"shape": "random", "depths": [1, 2, 3], "world": "closed"}),
}
SMALL, ATTRIBUTES = CONFIGS["matched"], 32


def sentences(record: dict[str, Any]) -> dict[str, str]:
    return {name: entry["text"] for part in ("triples", "rules") for name, entry in record[part].items()}


@pytest.fixture(scope="module", params=CONFIGS, ids=list(CONFIGS))
def sample(request: pytest.FixtureRequest) -> tuple[GeneratorConfig, list[dict[str, Any]]]:
    config = CONFIGS[request.param]
    config.validate()
    return config, [generate(config, 7, "train", index) for index in range(80)]


def test_every_label_follows_from_the_sentences(sample: Any) -> None:
    config, records = sample
    seen: Counter[Any] = Counter()
    for record in records:
        model = consequences(sentences(record).values(), config.world == "open")
        for question in record["questions"].values():
            answer = truth(question["question"], model, config.world == "open")
            assert str(question["answer"]).lower() == answer
            seen[answer] += 1
            _, literal = read(question["question"])
            depth = model.get(literal, model.get((*literal[:3], not literal[3])))
            assert question["QDep"] == depth or "@" in question["proofs"]
            seen["proven"] += depth is not None
    assert seen["true"] and seen["false"] and seen["proven"]
    assert bool(seen["unknown"]) == (config.world == "open")


def replay(proof: str, rules: dict[str, Any], model: dict[Lit, int]) -> tuple[set[Lit], int, int]:
    """What one official proof can conclude (several only if it rests on failed negations), its depth and length.

    Every step is checked against the sentences.
    """
    tokens = proof.replace("(", " ( ").replace(")", " ) ").split()
    names = {name for subject, verb, thing, _ in model for name in ((subject,) if verb == "is" else (subject, thing))}
    names |= {subject for body, head in rules.values() for subject, *_ in (*body, head)}

    def holds(literal: Lit, proven: set[Lit] | None) -> bool:
        if proven is None:  # NAF
            return not literal[3] and (*literal[:3], True) not in model
        return literal in proven

    def node() -> tuple[set[Lit] | None, int, int]:
        token = tokens.pop(0)
        if token != "(":
            return (None, 0, 1) if token == "NAF" else ({rules[token][1]}, 0, 1)
        assert tokens.pop(0) == "("
        conditions = []
        while tokens[0] != ")":
            conditions.append(node())
        tokens.pop(0)
        assert tokens.pop(0) == "->"
        body, head = rules[tokens.pop(0)]
        assert tokens.pop(0) == ")"
        conclusions = {
            (name if head[0] == "X" else head[0], *head[1:])
            for name in names
            if all(
                holds((name if wanted[0] == "X" else wanted[0], *wanted[1:]), got[0])
                for wanted, got in zip(body, conditions, strict=True)
            )
        }
        assert conclusions, f"a step of {proof} does not follow"
        return conclusions, 1 + max(c[1] for c in conditions), 1 + sum(c[2] for c in conditions)

    conclusions, depth, length = node()
    assert not tokens and conclusions is not None
    return conclusions, depth, length


def test_every_proof_can_be_replayed(sample: Any) -> None:
    config, records = sample
    for record in records:
        texts = sentences(record)
        rules = {name: read(text) for name, text in texts.items()}
        model = consequences(texts.values(), config.world == "open")
        for question in record["questions"].values():
            _, asked = read(question["question"])
            if "@" in question["proofs"]:
                chain = question["proofs"].split("= (")[1].removesuffix(")]]").split(" <- ")[:-1]
                assert len(chain) == question["QDep"]
                assert question["strategy"].removeprefix("inv-") == ("rconc" if chain else "random")
                wanted = {(asked[1:3], True)}
                for name in chain:
                    assert (rules[name][1][1:3], rules[name][1][3]) in wanted
                    wanted = {(condition[1:3], condition[3]) for condition in rules[name][0]}
                continue
            proofs = question["proofs"].removeprefix("[(").removesuffix(")]").split(" OR ")
            for number, proof in enumerate(proofs):
                conclusions, depth, length = replay(proof, rules, model)
                assert (*asked[:3], asked[3] == (question["strategy"] == "proof")) in conclusions
                assert len(conclusions) == 1 or "NAF" in proof
                if number == 0:
                    assert (depth, length) == (question["QDep"], question["QLen"])


def test_records_are_in_the_official_form(sample: Any) -> None:
    config, records = sample
    for record in records:
        theory = parse_record(json.loads(json.dumps(record)))
        assert (len(theory.facts), len(theory.rules)) == (record["NFact"], record["NRule"])
        assert sorted(record["theory"].removesuffix(".").split(". ")) == sorted(
            text.removesuffix(".") for text in sentences(record).values()
        )
        known = closure(theory, config.world == "open")
        assert max(d.depth for d in known.values()) >= record["maxD"] in config.depths
        for name, text in sentences(record).items():
            logic: Literal | Rule = theory.facts[name] if name in theory.facts else theory.rules[name]
            literals = [logic] if isinstance(logic, Literal) else [*logic.body, logic.head]
            conditions, head = read(text)
            assert [(a.subject.replace("someone", "X"), a.object, p) for a, p in literals] == [
                (s, o, p) for s, _, o, p in (*conditions, head)
            ]
        for question in record["questions"].values():
            atom, positive = parse_fact(question["representation"])
            subject, _, thing, sign = read(question["question"])[1]
            assert (atom.subject, atom.object, positive) == (subject, thing, sign)
            assert parse_literals(question["representation"])[1] == "L"


def test_random_theories_ask_every_depth_both_ways() -> None:
    for index in range(60):
        record = generate(CONFIGS["random"], 3, "train", index)
        asked = list(record["questions"].values())
        proven = {(q["strategy"], q["QDep"]) for q in asked if "@" not in q["proofs"]}
        assert proven == {(s, depth) for s in ("proof", "inv-proof") for depth in range(record["maxD"] + 1)}
        assert len({q["question"] for q in asked}) == len(asked) <= 18


def test_planted_groups_differ_in_the_subject_only() -> None:
    for name in ("matched, all", "square, all", "matched, closed"):
        config = CONFIGS[name]
        labels = ["False", "True", "Unknown"] if config.world == "open" else ["False", "True"]
        for index in range(60):
            record = generate(config, 5, "dev", index)
            for group in record["groups"]:
                questions = [record["questions"][question] for question in group]
                logic = [parse_fact(question["representation"]) for question in questions]
                assert len({(atom[1:], positive) for atom, positive in logic}) == 1
                assert len({atom.subject for atom, _ in logic}) == len(group)
                assert sorted(str(question["answer"]) for question in questions) == labels
                assert {len(question["relevant"]) for question in questions} == {config.body + record["maxD"]}
                for question in questions:
                    if question["strategy"].endswith("proof"):
                        proof = question["proofs"].strip("[]").replace("(", " ").replace(")", " ").split()
                        assert set(question["relevant"]) == set(proof) - {"->"}


def test_a_theory_belongs_to_one_split_whatever_the_seed() -> None:
    keys = {
        split: {
            content_key(sentences(generate(SMALL, seed, split, index)).values())
            for seed in (0, 1)
            for index in range(500)
        }
        for split in ("train", "dev", "test")
    }
    assert all(len(found) > 995 for found in keys.values())  # nearly all different
    assert not keys["train"] & keys["dev"] | keys["train"] & keys["test"] | keys["dev"] & keys["test"]
    for split in ("pretrain", "test"):
        texts = list(sentences(generate(CONFIGS["random"], 0, split, 0)).values())
        assert bucket(texts) == bucket(texts[::-1]) and bucket(texts) in BUCKETS[split]
    assert BUCKETS["pretrain"] == BUCKETS["train"]


DIGEST = """
import hashlib, json, random
from reckoning.problems import problem_to_json
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from reckoning.proofwriter.repaired import repaired
sha = hashlib.sha256()
for config in (GeneratorConfig(), GeneratorConfig(shape="square", depths=[2]),
               GeneratorConfig(shape="random", depths=[1, 2], attributes=8, facts=12, rules=10)):
    for index in range(15):
        record = generate(config, 11, "test", index)
        problems = repaired(record, random.Random(index), distractors=2)
        sha.update(json.dumps([record, [problem_to_json(problem) for problem in problems]]).encode())
print(sha.hexdigest())
"""


def test_processes_agree_whatever_their_hash_seed() -> None:
    root = Path(__file__).parents[2]
    digests = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_calls_do_not_depend_on_each_other() -> None:
    first = generate(SMALL, 0, "train", 5)
    generate(SMALL, 0, "train", 6)
    assert generate(SMALL, 0, "train", 5) == first
    assert generate(SMALL, 1, "train", 5) != first


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"shape": "round"}, r"data.generator.shape='round': use one of matched, square, shared, random"),
        ({"world": "flat"}, r"generator.world='flat': use one of open, closed"),
        ({"polarity": "none"}, r"generator.polarity='none'"),
        ({"negation": 1.5}, r"generator.negation=1.5: a share from 0 to 1"),
        ({"depths": []}, r"generator.depths=\[\]"),
        ({"depths": [-1]}, r"generator.depths=\[-1\]: a list of depths from 0 on"),
        ({"shape": "random", "depths": [9]}, r"generator.depths=\[9\]: .* raise data.generator.rules=6"),
        ({"shape": "shared", "depths": [2]}, r"generator.depths=\[2\]: .*shape=shared has \[1\] only"),
        ({"shape": "shared", "attributes": 9}, r"generator.attributes=9: .*shape=shared needs 10 or more"),
        ({"shape": "square", "world": "closed"}, r"generator.world='closed': .*shape=square has three labels"),
        ({"attributes": 5}, r"generator.attributes=5: use 7 to \d+"),
        ({"names": 100}, r"generator.names=100: use 6 to 40"),
        ({"groups": 0}, r"generator.groups=0: use 1 or more"),
        ({"body": 4}, r"generator.body=4: at most 3"),
    ],
)
def test_impossible_settings_are_refused_by_key(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        GeneratorConfig(**settings).validate("data.generator")


def test_unknown_splits_and_hopeless_settings_are_refused() -> None:
    with pytest.raises(UserError, match="split='valid': use one of train, pretrain, dev, test"):
        generate(SMALL, 0, "valid", 0)
    hopeless = GeneratorConfig(shape="random", attributes=1)
    with pytest.raises(UserError, match="no theory of shape=random"):
        generate(hopeless, 0, "train", 0)


def test_sentences_read_as_in_the_documentation() -> None:
    assert Counter(len(sentences(generate(SMALL, 0, "train", index))) for index in range(50)) == {6: 50}
    square = generate(CONFIGS["square"], 0, "train", 0)
    assert (square["NFact"], square["NRule"], len(square["questions"])) == (3, 6, 9)


def test_shared_theories_draw_from_one_list_of_rules_and_different_facts() -> None:
    rules: set[str] = set()
    facts: set[str] = set()
    for index in range(400):
        record = generate(CONFIGS["shared"], 0, "train", index)
        rules |= {entry["text"] for entry in record["rules"].values()}
        facts |= {entry["text"] for entry in record["triples"].values()}
    assert len(rules) == 12 and sum(" not " in rule for rule in rules) == 6
    assert len(facts) == 12 * 12  # every name with every condition
