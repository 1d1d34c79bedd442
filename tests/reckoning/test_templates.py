"""The strings of the released code, as text and as tokens."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.language.batch import Row
from common.language.config import ModelConfig
from common.language.sources import load_tokenizer
from reckoning.config import Target, TemplateConfig
from reckoning.problems import Problem, Question
from reckoning.templates import Templates

LABELS = {"true": "yes", "false": "no", "unknown": "none"}
FACTS = ("Anne is kind", "Bob is red", "If someone is kind then they are not round")
FALSE = Question("q1", "Anne is round", "false", (0, 2))
UNKNOWN = Question("q2", "Bob is kind", "unknown", (1,))
PROBLEM = Problem("p", "t", FACTS, ("fact", "fact", "rule"), (FALSE, UNKNOWN))


@pytest.fixture(scope="module")
def gpt2(data_root: Path) -> Any:
    """GPT-2's tokenizer from its two files, as people have them."""
    return load_tokenizer(ModelConfig(name=str(data_root / "tokenizers" / "gpt2")))


@pytest.fixture(scope="module")
def templates(gpt2: Any) -> Templates:
    return Templates(TemplateConfig(), LABELS, gpt2, window=1024)


def given(row: Row, tokenizer: Any) -> str:
    return str(tokenizer.decode(row.prompt))


def scored(row: Row, tokenizer: Any) -> str:
    return str(tokenizer.decode(row.ids[row.scored_from :]))


def test_a_fact_scores_the_sentence_and_neither_prefix_nor_end_of_text(templates: Templates, gpt2: Any) -> None:
    row = templates.fact(2, FACTS[2])
    assert (given(row, gpt2), scored(row, gpt2)) == ("fact_2: ", "If someone is kind then they are not round")
    # fact, _, 2, :, blank | If, " someone", ...: prefix and sentence are tokenised apart
    assert row.prompt == (22584, 62, 17, 25, 220)
    assert row.ids[5:7] == (1532, 2130)


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (Target.single, "no<|endoftext|>"),
        (Target.multi, "no because Anne is kind,If someone is kind then they are not round<|endoftext|>"),
    ],
)
def test_a_question_names_all_references_and_its_target_follows_without_a_blank(
    templates: Templates, gpt2: Any, target: Target, answer: str
) -> None:
    row = templates.question(PROBLEM, FALSE, target)
    assert given(row, gpt2) == "Based on fact_0 fact_1 fact_2, can we conclude Anne is round?"
    assert scored(row, gpt2) == answer
    assert row.ids[row.scored_from] == 3919  # "no"; " no" would be 645
    assert row.prompt == tuple(gpt2.encode("Based on fact_0 fact_1 fact_2, can we conclude Anne is round?"))


def test_in_context_rows_begin_with_end_of_text_and_have_one_fact_a_line(templates: Templates, gpt2: Any) -> None:
    row = templates.in_context(FACTS, PROBLEM, UNKNOWN, Target.multi)
    assert given(row, gpt2) == "<|endoftext|>" + "\n".join([*FACTS, "Can we conclude Bob is kind?"])
    assert scored(row, gpt2) == "none because Bob is red<|endoftext|>"
    assert row.ids[0] == row.ids[-1] == 50256


def test_baselines_leave_out_facts_or_question(templates: Templates, gpt2: Any) -> None:
    alone = templates.in_context((), PROBLEM, UNKNOWN, Target.single)
    assert given(alone, gpt2) == "<|endoftext|>Can we conclude Bob is kind?"
    unasked = templates.in_context(FACTS, PROBLEM, UNKNOWN, Target.single, ask=False)
    assert given(unasked, gpt2) == "<|endoftext|>" + "\n".join(FACTS) + "\n"
    assert scored(unasked, gpt2) == "none<|endoftext|>"


def test_the_released_codes_own_in_context_questions_are_one_key_away(gpt2: Any) -> None:
    bare = Templates(TemplateConfig(in_context_question="{question}"), LABELS, gpt2, 1024)
    assert given(bare.in_context((), PROBLEM, UNKNOWN, Target.single), gpt2) == "<|endoftext|>Bob is kind"
    config = TemplateConfig(in_context_question="Based on {references}, Can we conclude {question}?")
    row = Templates(config, LABELS, gpt2, 1024).in_context(FACTS, PROBLEM, UNKNOWN, Target.single)
    assert given(row, gpt2).endswith("\nBased on fact_0 fact_1 fact_2, Can we conclude Bob is kind?")


def test_without_relevant_facts_the_target_is_the_answer_alone(templates: Templates, gpt2: Any) -> None:
    row = templates.question(PROBLEM, Question("q", "Bob is big", "unknown"), Target.multi)
    assert scored(row, gpt2) == "none<|endoftext|>"


def test_labels_that_have_no_word_are_said_as_they_are(gpt2: Any) -> None:
    row = Templates(TemplateConfig(), {}, gpt2, 1024).question(PROBLEM, FALSE, Target.single)
    assert scored(row, gpt2) == "false<|endoftext|>"


def test_label_tokens_cover_the_longest_word_and_one_more(templates: Templates, gpt2: Any) -> None:
    words = [
        Question(str(place), "", answer) for place, answer in enumerate(("true", "unknown", "great-granddaughter"))
    ]
    assert templates.label_tokens(words) == len(gpt2.encode("great-granddaughter")) + 1
    assert templates.label_tokens(words[:1]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_any_text_survives_the_byte_level_tokens(templates: Templates, gpt2: Any, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab {}:,.\n'é漢🙂") for _ in range(20)) + "x"
    row = templates.fact(7, text)
    assert gpt2.decode(row.ids) == "fact_7: " + text
    question = Question("q", text, "true")
    assert text + "?" in given(templates.question(PROBLEM, question, Target.single), gpt2)


def test_a_template_without_prefix_is_conditioned_on_end_of_text(gpt2: Any) -> None:
    row = Templates(TemplateConfig(fact="{fact}."), LABELS, gpt2, 1024).fact(0, "Anne is kind")
    assert (given(row, gpt2), scored(row, gpt2)) == ("<|endoftext|>", "Anne is kind.")


def test_the_index_may_stand_behind_the_fact(gpt2: Any) -> None:
    row = Templates(TemplateConfig(fact="{{{fact}}} [{index:02d}]"), LABELS, gpt2, 1024).fact(3, "Anne is kind")
    assert (given(row, gpt2), scored(row, gpt2)) == ("{", "Anne is kind} [03]")


def test_the_embedded_tokenizer_writes_the_same_strings_in_lower_case() -> None:
    tokenizer = load_tokenizer(ModelConfig(name="tiny"))
    templates = Templates(TemplateConfig(), LABELS, tokenizer, 512)
    squeeze = str.maketrans("", "", " \n")

    def same(text: str, expected: str) -> bool:
        return text.lower().translate(squeeze) == expected.lower().translate(squeeze)

    row = templates.question(PROBLEM, FALSE, Target.multi)
    assert same(given(row, tokenizer), "Based on fact_0 fact_1 fact_2, can we conclude Anne is round?")
    target = "no because Anne is kind,If someone is kind then they are not round"
    assert same(scored(row, tokenizer).replace(tokenizer.eos_token, ""), target)
    assert row.ids[-1] == tokenizer.eos_token_id
    fact = templates.fact(11, FACTS[0])
    assert same(given(fact, tokenizer), "fact_11:") and same(scored(fact, tokenizer), FACTS[0])
    assert templates.label_tokens(PROBLEM.questions) <= 3, "answer words should be single tokens"


def test_a_row_longer_than_the_window_is_refused_with_both_numbers(gpt2: Any) -> None:
    short = Templates(TemplateConfig(), LABELS, gpt2, window=20)
    short.fact(0, FACTS[0])
    with pytest.raises(UserError, match=r"question q1: 19 given \+ 2 scored tokens, the model reads at most 20; use a"):
        short.question(PROBLEM, FALSE, Target.single)


def test_a_sentence_without_tokens_is_refused(templates: Templates) -> None:
    with pytest.raises(UserError, match="fact '': the tokenizer makes no token of it"):
        templates.fact(0, "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "fact",
            "fact_{number}: {fact}",
            r"data.templates.fact=.*unknown slot \{number\}; its slots are \{fact\}, \{index\}",
        ),
        ("fact", "fact_{index}:", r"data.templates.fact=.*\{fact\} must stand in it once"),
        ("fact", "{{fact}} {index}", r"\{fact\} must stand in it once"),
        ("question", "Is it so?", r"data.templates.question=.*\{question\} must stand"),
        ("question", "Is {question", r"data.templates.question=.*expected '}' before end of string; its slots"),
        ("multi_target", "{answer}", r"data.templates.multi_target=.*\{facts\} must stand"),
        ("reference", "{}", r"data.templates.reference=.*unknown slot \{\}"),
    ],
)
def test_a_bad_template_is_refused_with_its_key_and_slots(gpt2: Any, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Templates(TemplateConfig(**{name: text}), LABELS, gpt2, 1024)


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model.tokenizer=.*nowhere: there is no such folder; correct the path, or"):
        load_tokenizer(ModelConfig(tokenizer=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"model.name=.*: no tokenizer .*vocab.json and merges.txt.*fetch.*scale=cpu"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))


def test_a_tokenizer_without_end_of_text_is_refused(data_root: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(data_root / "tokenizers" / "gpt2" / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": null}')
    with pytest.raises(UserError, match="no end-of-text token; set eos_token in its tokenizer_config.json"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))
