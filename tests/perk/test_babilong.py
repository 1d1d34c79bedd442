"""BabiLong sets: facts in order, answers that follow from them, the token budget, and what splits must not share."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS
from common.data.textfile import read_text
from common.errors import UserError
from perk.babilong.build import build
from perk.babilong.config import FILES
from perk.config import DataConfig
from perk.problems import Problem
from perk.tokens import Tokens, Words, load
from tests.perk.babi_solver import solve

INDEXED = re.compile(r"(?:([A-Z]\w+) )?Event (\d+): ([A-Z][^.]*\.)")


def raw_stories(path: Path) -> set[tuple[tuple[str, ...], str, str]]:
    """(facts so far, question, answer) of a bAbI file, read with nothing of ours."""
    found, facts = set(), list[str]()
    for line in read_text(path).splitlines():
        number, _, text = line.partition(" ")
        facts = [] if number == "1" else facts
        if "\t" in text:
            question, answer, _ = text.split("\t")
            found.add((tuple(facts), question.strip(), answer))
        else:
            facts.append(text.strip())
    return found


def facts_in(problem: Problem) -> list[str]:
    """The facts as they follow in the text; checks that every character's are counted from 0."""
    counts: dict[str, int] = defaultdict(int)
    told = INDEXED.findall(" ".join(problem.segments))
    for name, number, fact in told:
        assert int(number) == counts[name] and (not name or fact.startswith(f"{name} "))
        counts[name] += 1
    return [fact for _, _, fact in told]


def check_answer(problem: Problem, facts: list[str]) -> None:
    """The answer follows from the facts; for gifts that were several, from the support."""
    (question,) = problem.questions
    support = [text.partition(": ")[2] if "Event " in text else text for text in question.support]
    assert set(support) <= set(facts)
    if solve(question.text, facts) != question.answers[0]:
        assert question.kind == "qa5" and solve(question.text, support) == question.answers[0]
    assert question.support and all(
        any(text in problem.segments[place] for place in question.gold) for text in question.support
    )


@pytest.fixture(scope="session")
def qwen(data_root: Path) -> Tokens:
    return load("tokenizers/qwen2", str(data_root))


@pytest.fixture(scope="session")
def books(composed: Any, data_root: Path) -> Any:
    """Task and overrides -> settings for real bAbI in real books at 8K tokens of Qwen's tokenizer, a few problems."""

    def call(task: int, *words: str) -> DataConfig:
        given = ["data.count={train:2,dev:1,test:2}", "data.cache=null", f"data.root={data_root}", *words]
        config: DataConfig = composed(
            "+experiment=babilong_qa1", "data=babilong_books", f"data.babilong.task={task}", *given
        ).data
        return config

    return call


@pytest.mark.parametrize("task", FILES)
def test_an_8k_set_of_real_stories_in_real_books_passes_the_checker(
    books: Any, qwen: Tokens, data_root: Path, task: int
) -> None:
    config, tokens = books(task), qwen
    told = {
        "train": raw_stories(data_root / "babi" / "en" / f"{FILES[task]}_train.txt.gz"),
        "test": raw_stories(data_root / "babi" / "test_part" / f"{FILES[task]}_test_part.txt.gz"),
    }
    for split, problems in build(config, tokens).items():
        for problem in problems:
            facts = facts_in(problem)
            (question,) = problem.questions
            assert (tuple(facts), question.text, question.answers[0]) in told["test" if split == "test" else "train"]
            check_answer(problem, facts)
            haystack = [re.sub(r"\s+", " ", INDEXED.sub("", text)).strip() for text in problem.segments]
            assert sum(tokens.counts(haystack)) == pytest.approx(8192, rel=0.01)
            assert problem.tokens == sum(tokens.counts(problem.segments))
            assert problem.tokens - problem.added == pytest.approx(8192, rel=0.01)
            assert problem.tokens - problem.added <= 8192
            assert max(tokens.counts(problem.segments)) <= 256, "facts count"
            assert problem.tokens / 256 <= len(problem.segments) <= 1.15 * problem.tokens / 256


def test_the_official_kind_keeps_the_budget_with_its_facts_inside(books: Any, qwen: Tokens, data_root: Path) -> None:
    config, tokens = books(2, "data.babilong.budget=inside", "data.babilong.index=none"), qwen
    stories = raw_stories(data_root / "babi" / "test_part" / f"{FILES[2]}_test_part.txt.gz")
    for problem in build(config, tokens)["test"]:
        (question,) = problem.questions
        assert problem.added == 0 and sum(tokens.counts(problem.segments)) == pytest.approx(8192, rel=0.01)
        text, known = " ".join(problem.segments), 0
        for facts, asked, answer in stories:
            support = set(question.support) <= set(facts) and all(fact in text for fact in facts)
            if support and (asked, answer) == (question.text, question.answers[0]):
                place = 0
                for fact in facts:  # each after the one before
                    place = text.find(fact, place)
                    assert place >= 0
                check_answer(problem, list(facts))
                known += 1
        assert known


def test_the_haystack_is_the_book_word_for_word(books: Any, qwen: Tokens, data_root: Path) -> None:
    problem = build(books(1), qwen)["test"][0]
    name = next(key for key in problem.sources if key.startswith("text:")).removeprefix("text:").partition("#")[0]
    lines = [line for line in read_text(data_root / "books" / name).splitlines() if not line.startswith(("#", "---"))]
    book = re.sub(r"\s+", " ", " ".join(lines))
    untouched = [text for text in problem.segments if "Event " not in text]
    assert untouched and untouched[0] in book


def test_a_book_belongs_to_one_split_and_so_does_a_story(books: Any) -> None:
    config = books(4, "data.count={train:0,dev:0,test:0}", "data.length=64", "data.segment=16", "data.tokenizer=words")
    splits = build(config, load("words", None))
    assert min(map(len, splits.values())) > 40
    sources = {split: {key for number in range(40) for key in splits[split][number].sources} for split in SPLITS}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not sources[a] & sources[b]
    assert all(any(key.startswith("text:") for key in keys) for keys in sources.values())


@pytest.mark.parametrize("task", FILES)
def test_generated_sets_need_no_file_and_pass_the_checker(small: Any, task: int) -> None:
    config = small("babilong_qa1", f"data.babilong.task={task}")
    for problems in build(config, load("words", None)).values():
        for problem in problems:
            check_answer(problem, facts_in(problem))
            assert problem.tokens - problem.added == pytest.approx(256, rel=0.01)


def test_a_problem_is_a_pure_function_of_seed_split_and_number(small: Any) -> None:
    one, other, seeded = (build(small("babilong_qa2", f"data.seed={seed}"), load("words", None)) for seed in (0, 0, 1))
    backwards = [one["test"][number] for number in reversed(range(6))]
    assert backwards[::-1] == list(other["test"]) == other["test"][:]
    assert one["test"][2].segments not in (seeded["test"][2].segments, one["train"][2].segments)
    assert one["test"][-1] == backwards[0]
    with pytest.raises(IndexError):
        one["test"][6]


def test_no_two_splits_share_a_story_or_a_sentence_of_the_haystack(small: Any) -> None:
    config = small("babilong_qa1", "data.count={train:40,dev:20,test:20}")
    stories: dict[str, set[Any]] = {}
    sentences: dict[str, set[str]] = {}
    for split, problems in build(config, load("words", None)).items():
        stories[split] = {tuple(facts_in(problem)) for problem in problems}
        texts = [INDEXED.sub("|", " ".join(problem.segments)) for problem in problems]
        sentences[split] = {part.strip() for text in texts for part in re.split(r"\||(?<=\.) ", text) if part.strip()}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not stories[a] & stories[b]
        # a last sentence may be cut short, and short beginnings are alike
        assert {text for text in sentences[a] & sentences[b] if text.endswith(".")} == set()


def test_a_split_of_any_size_takes_no_time_to_open(small: Any) -> None:
    splits = build(small("babilong_qa1", "data.count={train:1000000000,dev:1,test:1}"), load("words", None))
    assert len(splits["train"]) == 10**9
    assert splits["train"][10**9 - 1].id == "qa1_cpu/train/999999999"


def test_128k_tokens_are_met_and_the_test_split_may_be_longer(small: Any) -> None:
    config = small("babilong_qa1", "data.test_length=131072", "data.segment=256")
    splits = build(config, load("words", None))
    problem = splits["test"][0]
    assert problem.tokens - problem.added == pytest.approx(131072, rel=0.01)
    assert 512 <= len(problem.segments) <= 540 and max(load("words", None).counts(problem.segments)) <= 256
    assert splits["train"][0].tokens - splits["train"][0].added == pytest.approx(256, rel=0.01)


def test_several_questions_are_asked_of_one_context(small: Any) -> None:
    config = small("babilong_qa1", "data.questions=3", "data.babilong.world.facts=[10,14]")
    problem = build(config, load("words", None))["train"][0]
    assert len({question.text for question in problem.questions}) == 3
    for question in problem.questions:
        assert solve(question.text, facts_in(problem)) == question.answers[0]


def test_the_test_split_may_be_placed_otherwise(small: Any) -> None:
    config = small("babilong_qa1", "data.babilong.placement=pre", "data.babilong.test_placement=post")
    splits = build(config, load("words", None))
    for split, ends in (("train", 0), ("test", -1)):
        for problem in splits[split]:
            told = [number for number, text in enumerate(problem.segments) if "Event" in text]
            assert range(len(problem.segments))[ends] in told, "and in as many beside it as they need"
            assert len(told) <= 2 and told[-1] - told[0] == len(told) - 1


@pytest.mark.parametrize("length", [1024, 2048, 4096, 8192, 16384, 32768])
@pytest.mark.parametrize("placement", ["scattered", "grouped", "pre", "mid", "post"])
def test_no_segment_is_longer_than_its_budget_at_any_length(composed: Any, length: int, placement: str) -> None:
    words = Words()
    for task, more in ((1, []), (3, ["data.babilong.world.facts=[12,16]"])):
        given = [f"data.length={length}", f"data.babilong.placement={placement}", "data.cache=null", *more]
        config = composed(f"+experiment=babilong_qa{task}", "scale=cpu", *given).data
        for problem in build(config, words)["test"][:3]:
            assert max(words.counts(problem.segments)) <= config.segment_tokens
            assert problem.tokens == sum(words.counts(problem.segments))
            assert problem.tokens - problem.added <= config.length_of("test")
            if placement != "grouped":
                check_answer(problem, facts_in(problem))


def test_a_fact_longer_than_a_segment_is_refused(small: Any) -> None:
    with pytest.raises(UserError, match=r"a fact takes \d+ tokens, a segment has 8; raise data.segment"):
        build(small("babilong_qa1", "data.segment=8"), Words())["train"][0]


def test_stories_of_the_test_file_leave_the_training_file(small: Any, tmp_path: Path) -> None:
    lines = [f"1 Mary moved to the {room}.\n2 Where is Mary?\t{room}\t1\n" for room in ("office", "garden", "kitchen")]
    (tmp_path / "train.txt").write_text(
        "".join(lines[:2]) * 2 + "".join(f"1 John went to the {r}.\n2 Where is John?\t{r}\t1\n" for r in "abcdefgh")
    )
    (tmp_path / "test.txt").write_text(lines[0])
    words = [f"data.root={tmp_path}", "data.files={train:train.txt,test:test.txt}", "data.count={train:0,dev:0,test:0}"]
    splits = build(small("babilong_qa1", *words), load("words", None))
    asked = {split: [facts_in(problem)[0] for problem in problems] for split, problems in splits.items()}
    assert asked["test"] == ["Mary moved to the office."]
    assert "Mary moved to the office." not in asked["train"] + asked["dev"]
    assert len(asked["train"]) + len(asked["dev"]) == 10
    assert not set(asked["train"]) & set(asked["dev"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["data.babilong.task=6"], "data.babilong.task=6: bAbI tasks 1 to 5"),
        (["data.babilong.world.persons=9"], "world.persons=9: use 1 to 8"),
        (["data.babilong.world.facts=[5,2]"], "world.facts"),
        (["data.babilong.order=drawn", "data.babilong.placement=grouped"], "a group keeps its story's order"),
        (["data.length=64", "data.segment=64", "data.babilong.budget=inside", "data.babilong.task=3"], "facts take"),
        (["data.babilong.order=drawn", "data.babilong.index=none"], "nothing would tell the order"),
        (["data.segment=512"], "data.segment=512: longer than the context"),
        (["data.count.dev=-1"], "data.count="),
        (["data.count={train:0,dev:1,test:1}"], "say how many to generate"),
        (["data.files.train=x.txt", "data.questions=2"], "real babilong have one question a context"),
        (["data.files.train=x.txt", "data.export=out"], "only generated data are written"),
        (["data.files.train=x.txt", "data.root=nowhere"], "x.txt is not below it"),
        (["data.babilong.haystack.subset=a"], "name the data set"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_by_name(small: Any, words: list[str], what: str) -> None:
    with pytest.raises(UserError, match=re.escape(what)):
        list(build(small("babilong_qa1", *words), load("words", None))["train"])
