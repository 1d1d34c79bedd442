"""Questions over passages: official forms, distractors that give nothing away, full windows, disjoint splits."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS
from common.errors import UserError
from common.language.normal import normalise
from perk.documents.build import _problem, build, item_of
from perk.documents.items import Item, Passage, holds, looked_for, read_hotpotqa, read_pool, read_triviaqa
from perk.metrics import substring_match
from perk.retrieval import Index
from perk.tokens import Words, load

HOTPOT = {
    "_id": "q1",
    "question": "Who painted the mill?",
    "answer": "Ada Stone",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Mill", 0], ["Ada Stone", 1]],
    "context": [
        ["Mill", ["The mill was painted by a painter.", " It is old."]],
        ["Bridge", ["The bridge is new."]],
        ["Ada Stone", ["She was born early.", " Ada Stone painted the mill."]],
    ],
}


@pytest.mark.parametrize("form", ["array", "lines"])
def test_hotpotqa_is_read_in_both_forms(tmp_path: Path, form: str) -> None:
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps([HOTPOT]) if form == "array" else f"{json.dumps(HOTPOT)}\n")
    (item,) = read_hotpotqa(path)
    assert (item.id, item.question, item.answers, item.kind) == (
        "q1",
        "Who painted the mill?",
        ("Ada Stone",),
        "bridge",
    )
    assert [passage.title for passage in item.gold] == ["Mill", "Ada Stone"]
    assert item.gold[0].line == "Document (Title: Mill): The mill was painted by a painter. It is old."
    assert item.support == ("The mill was painted by a painter.", "Ada Stone painted the mill.")
    assert [passage.title for passage in item.others] == ["Bridge"]


def test_official_triviaqa_is_read_with_its_evidence(tmp_path: Path) -> None:
    (tmp_path / "evidence" / "wikipedia").mkdir(parents=True)
    words = [f"w{number}" for number in range(100)] + ["the", "Cotswold", "Hills", "are", "high"]
    (tmp_path / "evidence" / "wikipedia" / "Hill.txt").write_text(" ".join(words))
    answer = {"Value": "Cotswolds", "Aliases": ["Cotswold Hills"]}
    question = {"Question": "Which hills?", "QuestionId": "t1", "Answer": answer}
    question["EntityPages"] = [{"Filename": "Hill.txt", "Title": "Hill"}]
    path = tmp_path / "wikipedia-dev.json"
    path.write_text(json.dumps({"Data": [question], "Domain": "Wikipedia"}))
    (item,) = read_triviaqa(path, tmp_path / "evidence", 3)
    assert item.answers == ("Cotswolds", "Cotswold Hills")
    assert item.gold == (Passage("Hill", "the Cotswold Hills are high"),)
    assert item.others == (Passage("Hill", " ".join(words[:100])),)
    with pytest.raises(UserError, match="set data.documents.evidence"):
        list(read_triviaqa(path, None, 3))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"answer": ""}, "answer=''"),
        ({"context": [["Mill"]]}, "context is [title, [sentences]]"),
        ({"supporting_facts": [["Nowhere", 0]]}, "'Nowhere', which is not in the context"),
        ({"context": [["Mill", [""]], ["Ada Stone", ["x"]]]}, "no text under the supporting titles"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(HOTPOT)}\n{json.dumps(HOTPOT | change)}\n")
    with pytest.raises(UserError, match=re.escape(what)) as caught:
        list(read_hotpotqa(path))
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"title": "A", "text": "b"}\n{"title": "A"}\n', "pool.json:2: a passage needs title and text"),
        ('[{"title": "A", "text": "b"},\n {"title" "A"}]', "pool.json:2: malformed JSON"),
        ('[{"title": "A", "text": "b"},\n\n 7]', "pool.json:3: a JSON int where an object"),
        ("[]", "pool.json: holds no object"),
    ],
)
def test_a_mistake_in_the_pool_is_named_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "pool.json"
    path.write_text(text)
    with pytest.raises(UserError, match=what):
        list(read_pool(path))


def test_the_best_match_comes_first() -> None:
    index = Index(["a cat on a mat", "the capital of France is Paris", "dogs bark at the capital"])
    assert index.best("What is the capital of France?", 3) == [1, 2, 0]
    assert index.best("What is the capital of France?", 1) == [1]
    assert index.best("zzz", 9) == [0, 1, 2]


def test_of_equal_matches_the_earlier_comes_first_and_is_kept() -> None:
    assert Index(["river one"] * 6).best("river", 3) == [0, 1, 2]
    index = Index(["a wide river", "hills", "a long river", "hills", "a river", "a river", "hills"])
    ranked = index.best("river", 7)
    assert ranked == [4, 5, 0, 2, 1, 3, 6], "the shorter the better, then those without the word"
    assert all(index.best("river", most) == ranked[:most] for most in range(1, 8))
    assert index.best("Where is the", 2) == [0, 1], "stop words alone"


def test_an_answer_is_looked_for_in_whole_words() -> None:
    assert holds("In The Cotswold-Hills!", ("cotswold hills",)) is False
    assert holds("In the Cotswold Hills.", ("cotswold hills", "x"))
    assert not holds("yes and no", ("no",)) and not holds("Paris", ("Par",))


@pytest.mark.parametrize("name", ["hotpotqa", "triviaqa"])
def test_generated_questions_fill_the_window_and_only_gold_answers_them(small: Any, name: str) -> None:
    for problems in build(small(name), Words()).values():
        for problem in problems:
            (question,) = problem.questions
            assert 512 - 12 <= problem.tokens <= 512
            assert all(
                text in problem.segments[place] for text, place in zip(question.support, question.gold, strict=True)
            )
            others = [text for place, text in enumerate(problem.segments) if place not in question.gold]
            assert not any(holds(text, question.answers) for text in others)
            assert any(holds(problem.segments[place], question.answers) for place in question.gold)


def test_generated_answers_follow_from_the_passages(small: Any) -> None:
    config = small("hotpotqa")
    kinds = set()
    for index in range(30):
        item = item_of(config, "train", index)
        text = " ".join(passage.text for passage in item.gold)
        kinds.add(item.kind)
        if item.kind == "bridge":
            town = re.search(r"born in (\w+) in", text)[1]  # type: ignore[index]
            river = re.search(rf"{town} is a town on the river (\w+)\.", text)[1]  # type: ignore[index]
            assert item.answers == (river,)
        else:
            years = dict(re.findall(r"(\w+ \w+) was an? \w+ born in \w+ in (\d+)\.", text))
            assert item.answers == (min(years, key=lambda name: int(years[name])),)
    assert kinds == {"bridge", "comparison"}


@pytest.fixture(scope="session")
def real(composed: Any, data_root: Path) -> Any:
    """Name and overrides -> splits of real questions with real distractors."""

    @cache
    def call(name: str, *words: str) -> Any:
        given = [f"+experiment={name}", f"data={name}_part", f"data.root={data_root}", "data.cache=null"]
        config = composed(*given, "data.length=4096", "data.tokenizer=words", *words).data
        return build(config, load(config.tokenizer, config.root))

    return call


@pytest.mark.parametrize("name", ["hotpotqa", "triviaqa"])
def test_real_questions_stand_among_retrieved_passages_that_do_not_answer_them(real: Any, name: str) -> None:
    splits = real(name)
    assert sum(map(len, splits.values())) == {"hotpotqa": 140, "triviaqa": 517}[name], (
        "3 of 520 hold no answer as whole words"
    )
    sources: dict[str, set[str]] = {}
    positions = []
    for split, problems in splits.items():
        sources[split] = set()
        for problem in problems[:25]:
            (question,) = problem.questions
            assert problem.tokens == pytest.approx(4096, rel=0.01)
            gold = [problem.segments[place] for place in question.gold]
            others = [text for place, text in enumerate(problem.segments) if place not in question.gold]
            assert not any(holds(text, question.answers) for text in others)
            assert name == "hotpotqa" or all(holds(text, question.answers) for text in gold)
            assert all(any(sentence in text for text in gold) for sentence in question.support)
            sources[split] |= set(problem.sources) | {normalise(text) for text in problem.segments[:-1]}
            positions += [place / len(problem.segments) for place in question.gold]
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not sources[a] & sources[b]
    assert 0.3 < sum(positions) / len(positions) < 0.7


def test_retrieved_distractors_are_nearer_to_the_question_than_drawn_ones(real: Any) -> None:
    def shared(splits: Any) -> float:
        total = 0
        for problem in splits["test"][:10]:
            (question,) = problem.questions
            asked = set(normalise(question.text).split())
            total += sum(len(asked & set(normalise(text).split())) / len(problem.segments) for text in problem.segments)
        return total

    assert shared(real("hotpotqa")) > 1.3 * shared(real("hotpotqa", "data.documents.distractors=drawn"))


def test_too_few_passages_and_too_short_a_window_are_said(real: Any) -> None:
    with pytest.raises(UserError, match=r"distractors fill only \d+ of 400000 tokens; give more passages"):
        real("hotpotqa", "data.length=400000")["test"][0]
    with pytest.raises(UserError, match=r"gold passages of question .* take \d+ of 40 tokens"):
        list(real("hotpotqa", "data.length=40", "data.segment=16")["test"])


def test_questions_with_a_gold_title_of_the_test_file_leave_the_training_file(small: Any, tmp_path: Path) -> None:
    def question(name: str, title: str) -> str:
        context = [[title, [f"{title} is {name}."]], *([f"Page {n}", [f"Nothing {n} here at all."]] for n in range(60))]
        facts = [[title, 0]]
        return json.dumps({"id": name, "question": name, "answer": "x", "context": context, "supporting_facts": facts})

    (tmp_path / "train.jsonl").write_text("\n".join(question(f"q{n}", f"Town {n}") for n in range(12)))
    (tmp_path / "test.jsonl").write_text(question("t", "Town 3"))
    words = [
        f"data.root={tmp_path}",
        "data.files={train:train.jsonl,test:test.jsonl}",
        "data.length=32",
        "data.segment=16",
    ]
    splits = build(small("hotpotqa", *words, "data.count={train:0,dev:0,test:0}"), Words())
    assert len(splits["train"]) + len(splits["dev"]) == 11 and len(splits["test"]) == 1
    assert all("q3" not in problem.questions[0].text for split in SPLITS for problem in splits[split])


POOL = [
    Passage(f"Lake {number}", f"The lake has {number} islands. It is deep and cold, and boats go there.")
    for number in range(40)
]


def test_no_distractor_is_right_by_the_metric_though_its_words_are_others(small: Any, tmp_path: Path) -> None:
    """`art` is no word of `party`, but the metric finds it there."""
    party = Passage("Party", "The party was loud. Everybody left before the end of it.")
    gold = Passage("Gallery", "The gallery shows art of the town.")
    item = Item("q", "What is shown?", ("art",), "triviaqa", (gold,), (party, *POOL))
    problem = _problem(small("triviaqa", "data.length=256"), Words(), "train", 0, item, (party, *POOL))
    (question,) = problem.questions
    others = [text for place, text in enumerate(problem.segments) if place not in question.gold]
    assert others and not any(substring_match(text, ("art",)) for text in others)
    assert not holds(party.line, ("art",)), "and it is no gold passage either"


def test_a_question_whose_answer_every_passage_holds_is_said(small: Any, tmp_path: Path) -> None:
    gold = Passage("E", "The answer is e.")
    item = Item("q7", "Which letter?", ("e",), "triviaqa", (gold,), tuple(POOL))
    message = "as 40 others hold an accepted answer (e) as the metric does; leave question q7 out"
    with pytest.raises(UserError, match=re.escape(message)):
        _problem(small("triviaqa", "data.length=256"), Words(), "train", 0, item, POOL)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text(json.dumps([HOTPOT, HOTPOT], indent=0))
    with pytest.raises(UserError, match=r"twice.json:\d+: id 'q1' was used in line 2; give every question its own"):
        list(read_hotpotqa(path))
    line = {"id": 0, "question": "Who?", "answers": [5], "passages": [{"title": "a", "text": "It was 5."}]}
    path.write_text(json.dumps(line))
    with pytest.raises(UserError, match="twice.json:1: answers hold 5, which is no text"):
        list(read_triviaqa(path, None, 3))


@pytest.mark.parametrize("name", ["hotpotqa", "triviaqa"])
def test_real_distractors_are_never_right_and_no_segment_is_longer_than_it_may_be(real: Any, name: str) -> None:
    for problem in real(name, "data.length=4096")["test"][:12]:
        (question,) = problem.questions
        counts = Words().counts(problem.segments)
        assert max(counts) <= 256 and sum(counts) == problem.tokens <= 4096
        gold = {problem.segments[place].partition("): ")[0] for place in question.gold}
        for text in problem.segments:
            if text.partition("): ")[0] not in gold:
                assert not substring_match(text, looked_for(question.answers))


def test_a_long_passage_becomes_segments_under_its_title_that_stay_together(small: Any) -> None:
    told = [f"Sentence {number} says that there are {number} boats." for number in range(30)]
    long = Passage("Boats", " ".join(told))
    item = Item("q", "What does it say?", ("17 boats",), "bridge", (long,), tuple(POOL), (told[17],))
    problem = _problem(small("hotpotqa", "data.length=512", "data.segment=64"), Words(), "train", 3, item, POOL)
    counts = Words().counts(problem.segments)
    assert max(counts) <= 64 and problem.tokens == sum(counts) <= 512
    parts = [place for place, text in enumerate(problem.segments) if text.startswith("Document (Title: Boats): ")]
    assert len(parts) > 3 and parts == list(range(parts[0], parts[-1] + 1))
    text = " ".join(problem.segments[place].removeprefix("Document (Title: Boats): ") for place in parts)
    assert text == long.text
    (place,) = problem.questions[0].gold
    assert told[17] in problem.segments[place]


def test_an_answer_without_a_normal_form_is_left_out_in_words(
    small: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        {
            "id": str(number), "question": f"Which letter is {number}?", "answer": "A" if number == 3 else "Ada Stone",
            "supporting_facts": [[f"Mill {number}", 0]],
            "context": [[f"Mill {number}", [f"Ada Stone painted {number}."]]],
        }
        for number in range(12)
    ]  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    words = [f"data.root={tmp_path}", "data.files.train=questions.jsonl", "data.count={train:0,dev:0,test:0}"]
    splits = build(small("hotpotqa", *words), Words())
    assert sum(map(len, splits.values())) == 11
    assert "1 questions left out, whose answers are articles or signs alone, such as 'A' of 3" in caplog.text
