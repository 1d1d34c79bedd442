"""The templates' strings as tokens, answers read back, and what does not fit."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.language.batch import Row
from common.language.config import ModelConfig
from common.language.sources import load_tokenizer
from perk import data
from perk.config import Target, TemplateConfig
from perk.problems import Problem, Question, relabelled
from perk.templates import Templates, predicted, token_shares
from tests.perk.miniature import problems, tokenizer
from tests.perk.test_data import EXPERIMENTS

TAGS = TemplateConfig().support
SAID = "{support} so {answer}"
KNOWN, UNKNOWN = problems()[0].questions[0], Question("c/0", "Where is the football?", ("office",), "qa1")


def templates(window: int = 1000, words: Any = None, **strings: str) -> Templates:
    return Templates(TemplateConfig(**strings), words or tokenizer(), window)


def given(row: Row, words: Any) -> str:
    return str(words.decode(row.prompt))


def scored(row: Row, words: Any) -> str:
    return str(words.decode(row.ids[row.scored_from :]))


# ---- segments


def test_a_segment_is_predicted_behind_a_label_that_is_only_given() -> None:
    t, problem = templates(), problems()[1]
    rows = t.segments(problem)
    assert [given(row, t.tokenizer) for row in rows] == ["doc_0: ", "doc_1: ", "doc_2: "]
    assert tuple(scored(row, t.tokenizer) for row in rows) == problem.segments, "and no end of text"
    assert [predicted(row) for row in rows] == [len(row.ids) - row.scored_from for row in rows]


def test_labels_count_from_zero_or_are_the_problems_own() -> None:
    t, problem = templates(), problems()[0]
    mixed = relabelled(problem, random.Random(1))
    assert sorted(mixed.labels) == list(range(5)) != list(mixed.labels) and mixed.segments == problem.segments
    shown = [given(row, t.tokenizer) for row in t.segments(mixed)]
    assert shown == [f"doc_{number}: " for number in mixed.labels]


def test_without_a_label_the_first_token_is_given() -> None:
    t, problem = templates(label=""), problems()[0]
    rows = t.segments(problem)
    assert [row.scored_from for row in rows] == [0] * 5
    assert [predicted(row) for row in rows] == [len(row.ids) - 1 for row in rows]


def test_shares_count_every_predicted_token_alike() -> None:
    rows = [Row((1, 2, 3, 4), 1), Row((1, 2), 1), Row((1, 2, 3), 0), Row((7,), 0), Row((), 0)]
    assert [predicted(row) for row in rows] == [3, 1, 2, 0, 0]
    assert token_shares(rows) == pytest.approx([3 / 6, 1 / 6, 2 / 6, 0, 0])


@pytest.mark.parametrize(
    ("texts", "shown"), [(("Rain",), "1 token in 1 segment"), (("A", "It"), "2 tokens in 2 segments")]
)
def test_a_context_without_anything_to_predict_is_refused(texts: tuple[str, ...], shown: str) -> None:
    problem = Problem("p", texts, (UNKNOWN,), (), 0)
    assert len(templates().segments(problem)) == len(texts), "behind a label a token can be predicted"
    with pytest.raises(UserError, match=rf"^p: a context of {shown} has nothing to predict, .* data.templates.label$"):
        templates(label="").segments(problem)
    longer = Problem("p", (*texts, "Rain fell"), (UNKNOWN,), (), 0)
    rows = templates(label="").segments(longer)
    assert token_shares(rows) == [0.0] * len(texts) + [1.0]


def test_a_segment_longer_than_the_window_is_named() -> None:
    problem = problems()[0]
    longest = max(len(row.ids) for row in templates().segments(problem))
    assert len(templates(longest).segments(problem)) == 5
    text = rf"^a, segment 2: {longest} tokens, the model reads {longest - 1}; lower data.segment"
    with pytest.raises(UserError, match=text):
        templates(longest - 1).segments(problem)
    with pytest.raises(UserError, match=r"^a/0: \d+ tokens, the model reads 20; .*method.target=answer"):
        templates(20).question(problem, KNOWN, Target.support)


# ---- questions and what is to be said


def test_a_question_says_how_many_segments_there_are_and_its_target_ends_the_text() -> None:
    t, problem = templates(), problems()[0]
    row = t.question(problem, KNOWN, Target.answer)
    assert given(row, t.tokenizer) == "5 documents have been memorised.\nQuestion: Where is Mary?\nAnswer:"
    assert scored(row, t.tokenizer) == " hallway<eos>" and row.ids[-1] == t.eos


def test_support_comes_first_where_it_is_wanted_and_known() -> None:
    t, problem = templates(), problems()[0]
    row = t.question(problem, KNOWN, Target.support)
    said = " <support> Mary went to the hallway. </support> <answer> hallway </answer>"
    assert scored(row, t.tokenizer) == f"{said}<eos>"
    assert row.prompt == t.question(problem, KNOWN, Target.answer).prompt
    two = Question("q", "?", ("hallway",), "k", ("A dog slept.", "It was late."))
    assert "<support> A dog slept. It was late. </support>" in t.target(two, Target.support)
    assert scored(t.question(problem, UNKNOWN, Target.support), t.tokenizer) == " office<eos>"


@pytest.mark.parametrize(
    ("support", "response", "answer"),
    [
        (TAGS, " <support> It is. </support> <answer> the hallway </answer>", "the hallway"),
        (TAGS, "<support>it is . < / support > < answer > hallway < / answer > and more", "hallway"),
        (TAGS, "<SUPPORT> It is. </SUPPORT> <ANSWER>hallway", "hallway"),
        (TAGS, "hallway", ""),
        (TAGS, "<support> It is. </support>", ""),
        (SAID, "it is . so hallway", "hallway"),
        (SAID, "it is so . so\nhallway ", "hallway"),
        (SAID, "a sophomore from isohaven. so the hallway", "the hallway"),
        (SAID, "a sophomore from isohaven.", ""),
        ("{answer} because {support}", " hallway because it is so because it is", "hallway"),
        ("{answer} because {support}", "hallway", "hallway"),
    ],
)
def test_an_answer_is_read_from_behind_its_support(support: str, response: str, answer: str) -> None:
    t = templates(support=support)
    assert t.read(response, KNOWN, Target.support) == answer
    assert t.read(response, KNOWN, Target.answer) == response.strip()
    assert t.read(response, UNKNOWN, Target.support) == response.strip(), "support was not asked for"


@pytest.mark.parametrize("support", [None, TAGS], ids=["own", "tags"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_a_learner_is_trained_to_say_is_read_back_as_the_answer(
    small: Callable[..., Any], experiment: str, support: str | None
) -> None:
    """Generated contexts hold every word that a template may be mistaken for, such as sophomore."""
    config = small(experiment, "data.count={train:30,dev:1,test:30}")
    words = load_tokenizer(ModelConfig(name="tiny_stories"))
    if support is not None:
        config.templates.support = support
    t = Templates(config.templates, words, 4096)
    splits = data.load(config)
    for question in [q for split in ("train", "test") for problem in splits[split] for q in problem.questions]:
        for target in Target:
            said = words.decode(words(t.target(question, target)).input_ids)
            expected = words.decode(words(question.answers[0]).input_ids)
            assert t.read(said, question, target) == expected.strip(), said


# ---- context in the prompt


def test_in_context_everything_stands_in_one_row() -> None:
    t, problem = templates(), problems()[1]
    row, cut = t.in_context(problem.segments, KNOWN, Target.answer, 0)
    text = "".join(f"{segment}\n" for segment in problem.segments)
    assert cut == 0 and given(row, t.tokenizer) == f"{text}\nQuestion: Where is Mary?\nAnswer:"
    assert scored(row, t.tokenizer) == " hallway<eos>"
    supported, _ = t.in_context(problem.segments, KNOWN, Target.support, 0)
    assert "<support> Mary" in scored(supported, t.tokenizer)


def test_a_template_may_ask_before_the_context_and_number_the_segments() -> None:
    t = templates(in_context="Question: {question}\n{context}Answer:", in_context_segment="doc_{index}: {text}\n")
    row, _ = t.in_context(problems()[2].segments, KNOWN, Target.answer, 0)
    first, second = problems()[2].segments
    assert given(row, t.tokenizer) == f"Question: Where is Mary?\ndoc_0: {first}\ndoc_1: {second}\nAnswer:"


def test_the_beginning_of_a_context_is_cut_until_prompt_and_answer_fit() -> None:
    problem = problems()[0]
    whole, _ = templates().in_context(problem.segments, KNOWN, Target.support, 0)
    size, said = len(whole.ids), len(whole.ids) - whole.scored_from
    for reserve, beyond in ((0, 0), (said, 0), (said + 4, 4)):
        for window in (size - 10, size - 1):
            t = templates(window)
            row, cut = t.in_context(problem.segments, KNOWN, Target.support, reserve)
            assert cut == size - window + beyond and row.prompt == whole.prompt[cut:]
            assert row.ids[row.scored_from :] == whole.ids[whole.scored_from :]
    row, cut = templates(size).in_context(problem.segments, KNOWN, Target.support, said)
    assert (row, cut) == (whole, 0)


def test_a_cut_leaves_what_stands_before_the_context() -> None:
    t = templates(40, in_context="Question: {question}\n{context}Answer:")
    row, cut = t.in_context(problems()[0].segments, KNOWN, Target.answer, 0)
    assert cut > 0 and len(row.ids) == 40
    assert given(row, t.tokenizer).startswith("Question: Where is Mary?\n") and "It was late.\nAnswer:" in given(
        row, t.tokenizer
    )


def test_a_question_that_does_not_fit_alone_is_refused() -> None:
    text = r"^a/0: question and answer need \d+ tokens, the model reads 20; lower evaluation.max_new_tokens, or raise"
    with pytest.raises(UserError, match=text):
        templates(20).in_context(problems()[0].segments, KNOWN, Target.support, 0)
    with pytest.raises(UserError, match=text):
        templates(20).in_context(problems()[0].segments, KNOWN, Target.answer, 16)


# ---- templates that cannot work


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        ({"question": "Where?"}, r"^data.templates.question='Where\?': put {question} into it$"),
        ({"label": "{number}"}, r"data.templates.label='{number}': unknown slot {number}; it has {index}$"),
        ({"in_context": "{context}{question}{answer}"}, "unknown slot {answer}; it has {context}, {question}"),
        ({"in_context": "{context}{question}{context}"}, "it has {context} 2 times; once is possible"),
        ({"answer": "{answer"}, r"data.templates.answer='{answer': .*; write {{ for a brace"),
        ({"support": "{answer}"}, "data.templates.support='{answer}': put {support} into it"),
        ({"support": "{support} {answer}"}, "nothing stands between the answer and the support"),
        ({"support": "so {answer} {support}"}, "nothing stands between the answer and the support"),
    ],
)
def test_templates_with_missing_strange_or_clashing_slots_are_refused(strings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        templates(**strings)


def test_gpt2_tokens_of_label_and_segment_are_cut_apart(data_root: Path) -> None:
    words = load_tokenizer(ModelConfig(name=str(data_root / "tokenizers" / "gpt2")))
    (row,) = templates(words=words).segments(Problem("p", ("Mary moved.",), (UNKNOWN,), (), 0))
    assert row.prompt == tuple(words.encode("doc_0: ")) and row.ids[row.scored_from :] == tuple(
        words.encode("Mary moved.")
    )
