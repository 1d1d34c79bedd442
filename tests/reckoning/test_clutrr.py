"""Generated kinship stories: every answer checked from the sentences alone; what is held out; balance; refusals."""

import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UserError
from reckoning import data
from reckoning.clutrr.config import HOPS, ClutrrConfig
from reckoning.clutrr.generator import generate
from reckoning.clutrr.kinship import WORDS
from reckoning.clutrr.paths import answers_of, paths_of, split_of
from reckoning.clutrr.wording import fact_text
from reckoning.config import SPLITS, DataConfig, Format, Order
from reckoning.problems import Problem
from reckoning.shortcuts import words
from tests.reckoning.families import endings, seen, understood

ROUND = 18
"""Stories until every answer has had its turn."""
SIDES = {"father-in-law": "father", "mother-in-law": "mother", "brother-in-law": "brother", "sister-in-law": "sister"}


@cache
def table() -> dict[tuple[str, str], str]:
    """Compositions as families show them; where they leave two sides open, the side of the person asked about."""
    single = {pair: str(*found) for pair, found in seen().items() if len(found) == 1 and None not in found}
    sides = {frozenset(pair): pair[1] for pair in SIDES.items()}
    return single | {pair: sides[found] for pair, found in seen().items() if found in sides}  # type: ignore[index]


def chain_of(problem: Problem) -> tuple[list[str], list[str]]:
    """Persons and relation words from the person asked against on, put together from the sentences."""
    question = problem.questions[0]
    numbers = [word for word in words(question.text) if word.isdigit()]
    who, of = (f"person {number}" for number in numbers)
    known = {of: (word, who) for of, word, who in map(understood, problem.facts)}
    persons, path = [of], []
    while persons[-1] != who:
        word, person = known[persons[-1]]
        persons, path = [*persons, person], [*path, word]
    return persons, path


def stories(split: str, hops: int, count: int = 2 * ROUND, **settings: Any) -> list[Problem]:
    return [generate(ClutrrConfig(**settings), 0, split, number, [hops]) for number in range(count)]


@pytest.fixture(scope="module", params=HOPS, ids=lambda hops: f"{hops} hops")
def sample(request: pytest.FixtureRequest) -> tuple[int, dict[str, list[Problem]]]:
    return request.param, {split: stories(split, request.param) for split in SPLITS}


def test_every_answer_follows_from_the_sentences(sample: Any) -> None:
    hops, splits = sample
    for problem in (problem for problems in splits.values() for problem in problems):
        persons, path = chain_of(problem)
        assert endings(path, table()) == {problem.questions[0].answer}, path
        assert len(path) == len(problem.facts) == problem.questions[0].depth == hops
        assert len(set(persons)) == hops + 1
        assert set(persons) <= {f"person {number}" for number in range(1, 21)}


def test_every_answer_follows_from_the_shared_table(sample: Any, data_root: Path) -> None:
    pairs = yaml.safe_load((data_root / "clutrr" / "composition_table.json").read_text())
    shared = {tuple(pair.split(",")): word for pair, word in pairs.items()}
    for problem in (problem for problems in sample[1].values() for problem in problems):
        assert endings(chain_of(problem)[1], shared) == {problem.questions[0].answer}  # type: ignore[arg-type]


def test_what_is_recited_is_the_chain_in_order(sample: Any) -> None:
    shuffled = 0
    for problem in sample[1]["train"]:
        persons, path = chain_of(problem)
        recited = [understood(problem.facts[index]) for index in problem.questions[0].relevant]
        assert recited == list(zip(persons, path, persons[1:], strict=False))
        shuffled += problem.questions[0].relevant != tuple(range(len(problem.facts)))
    assert shuffled > 5


def test_no_two_splits_share_a_story_and_from_three_hops_on_no_path(sample: Any) -> None:
    hops, splits = sample
    for a, b in combinations(SPLITS, 2):
        assert not {p.theory for p in splits[a]} & {p.theory for p in splits[b]}
        shared = {"-".join(chain_of(p)[1]) for p in splits[a]} & {"-".join(chain_of(p)[1]) for p in splits[b]}
        assert bool(shared) == (hops == 2), "the 62 paths of two facts are the building blocks of all"


def test_answers_take_turns(sample: Any) -> None:
    for problems in sample[1].values():
        counts = Counter(problem.questions[0].answer for problem in problems)
        assert len(counts) == ROUND and set(counts.values()) == {2}, "the majority answer has 1 in 18"


def test_the_splits_of_few_paths_are_counted_out() -> None:
    for hops, total in ((2, 62), (3, 296), (4, 1496)):
        paths = paths_of(hops)
        assert len(paths) == total
        shares = Counter(split_of(path) for path in paths)
        assert shares["test"] == shares["dev"] > total / 10 and shares["train"] > 0.6 * total
        of_answer = defaultdict(Counter)
        for path, answer in paths.items():
            of_answer[answer][split_of(path)] += 1
        for answer, counts in of_answer.items():
            assert counts["train"] >= 1 and (counts.keys() == set(SPLITS)) == (counts.total() >= 3), answer
    assert split_of(["son", "mother", "father"]) is None, "no story of different persons has this path"


@pytest.mark.parametrize("hops", [2, 3])
def test_what_is_held_out_can_be_all_or_nothing(hops: int) -> None:
    def paths(split: str, held_out: str) -> set[str]:
        return {"-".join(chain_of(p)[1]) for p in stories(split, hops, 6 * ROUND, held_out=held_out)}

    train, test = paths("train", "all"), paths("test", "all")
    assert test and not train & test
    answers = answers_of("test", hops, by_path=True)
    assert {p.questions[0].answer for p in stories("test", hops, held_out="all")} == set(answers)
    assert len(answers) == (10 if hops == 2 else 18), "eight answers have fewer than three paths of two facts"
    assert len(paths("train", "none") & paths("test", "none")) > 20
    everything = {
        split: {p.theory for p in stories(split, hops, 200, held_out="none", persons=3 + hops)} for split in SPLITS
    }
    assert not everything["train"] & everything["test"], "stories are never shared"


def test_hops_take_turns_in_equal_numbers() -> None:
    config = DataConfig(format=Format.clutrr, hops=2, theories={"train": 4, "dev": 3, "test": 90})
    splits = data.load(config)
    assert {split: len(problems) for split, problems in splits.items()} == config.theories
    depths = {split: Counter(p.questions[0].depth for p in problems) for split, problems in splits.items()}
    assert depths["train"].keys() == depths["dev"].keys() == {2}
    assert depths["test"] == dict.fromkeys(range(2, 11), 10)


def test_a_story_is_a_function_of_seed_split_and_number_in_any_process() -> None:
    program = (
        "from reckoning.clutrr.generator import generate; from reckoning.clutrr.config import ClutrrConfig; "
        "print(*(generate(ClutrrConfig(), 3, 'dev', n, [2, 5], distractors=2) for n in (7, 4)), sep='\\n')"
    )
    command = [sys.executable, "-c", program]
    outputs = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
                       cwd=Path(__file__).parents[2]).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = [str(generate(ClutrrConfig(), 3, "dev", n, [2, 5], distractors=2)) for n in (7, 4)]
    assert outputs == {"\n".join(here) + "\n"}
    others = [generate(ClutrrConfig(), seed, split, 7, [5]) for seed, split in ((3, "dev"), (4, "dev"), (3, "test"))]
    assert len({problem.theory for problem in others}) == 3


@pytest.mark.parametrize("order", Order)
def test_distractors_are_about_persons_off_the_chain(order: Order) -> None:
    for number in range(ROUND):
        given = {"distractors": 6, "order": order.value}
        problem = generate(ClutrrConfig(), 1, "train", number, [10], **given)
        persons, path = chain_of(problem)
        relevant = problem.questions[0].relevant
        assert len(problem.facts) == 16 and len(path) == len(set(relevant)) == 10
        others = [understood(fact) for index, fact in enumerate(problem.facts) if index not in relevant]
        assert len(others) == 6 and not {name for of, _, who in others for name in (of, who)} & set(persons)
        if order is not Order.shuffled:
            first = 0 if order is Order.relevant_first else 6
            assert relevant == tuple(range(first, first + 10))


def test_paraphrases_say_the_same_and_every_word_has_two_or_three() -> None:
    forms = defaultdict(set)
    for word in WORDS:
        fact = ("person 3", word, "person 17")
        for pattern in range(3):
            text = fact_text(fact, pattern)
            assert understood(text) == ("person 17", word, "person 3")
            forms[word].add(text)
    assert {len(texts) for texts in forms.values()} == {2, 3}
    assert forms["son"] == {
        "person 3 is a son of person 17", "person 17 has a son called person 3", "person 3 is person 17's son",
    }  # fmt: skip
    plain = stories("train", 2, paraphrases=1)
    assert all(" of " in fact for problem in plain for fact in problem.facts)
    assert len({fact.replace("'s", " of") == fact for p in stories("train", 2) for fact in p.facts}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hops": None}, r"data\.hops=None: facts of a training story; use 2 to 10"),
        ({"hops": 1}, r"data\.hops=1"),
        ({"hops": None, "format": Format.clutrr_text}, r"data\.hops=null: it says which original files"),
        ({"clutrr": {"test_hops": [2, 11]}}, r"data\.clutrr\.test_hops=\[2, 11\]: a list of 2 to 10"),
        ({"clutrr": {"test_hops": []}}, r"data\.clutrr\.test_hops=\[\]"),
        ({"clutrr": {"held_out": "some"}}, r"data\.clutrr\.held_out=some: use one of none, longer, all"),
        ({"clutrr": {"paraphrases": 4}}, r"data\.clutrr\.paraphrases=4: use 1 to 3"),
        ({"clutrr": {"persons": 10}}, r"data\.clutrr\.persons=10: the longest story has 11 persons"),
        ({"clutrr": {"persons": 13}, "distractors": "2"}, "the longest story has 14 persons"),
        ({"distractors": "all"}, r"data\.distractors=all: a kinship story has no further sentences"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    settings = {"format": Format.clutrr, "hops": 2, **change}
    with pytest.raises(UserError, match=message):
        DataConfig(**settings | {"clutrr": ClutrrConfig(**settings.get("clutrr", {}))})
