"""The three metrics, on answers worked out by hand."""

import pytest

from common.language.normal import normalise
from perk.babilong.vocabulary import labels_of
from perk.metrics import exact_match, label_match, substring_match


def test_the_normal_form_drops_case_punctuation_and_articles() -> None:
    assert normalise(" The  Cat, an AIM; 49.3! ") == "cat aim 493"


def test_exact_match_takes_any_accepted_answer() -> None:
    assert exact_match("the Kitchen.", ["kitchen"]) and exact_match("b", ["a b", "B"])
    assert not exact_match("kitchen sink", ["kitchen"])


def test_an_answer_without_a_normal_form_is_not_matched_by_silence() -> None:
    assert exact_match("a", ["A"]) and exact_match("The The", ["The the"])
    assert not exact_match("", ["A"]) and not exact_match("the", ["A"])


def test_substring_match_takes_more() -> None:
    assert substring_match("It was Mark Twain, I think", ["Clemens", "mark twain"])
    assert not substring_match("Twain", ["Mark Twain"])


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("bathroom", True),
        ("Mary is in the bathroom.", True),
        ("The bathroom. Then the office.", True),  # the first sentence counts
        ("bathroom or office", False),
        ("office", False),
        ("", False),
    ],
)
def test_the_official_metric_wants_the_right_label_and_no_other(said: str, right: bool) -> None:
    assert label_match(said, "bathroom", "Where is Mary?", labels_of(1)) is right


def test_the_official_metric_leaves_out_the_labels_of_the_question() -> None:
    question = "Where was the apple before the office?"
    assert label_match("It was in the garden before the office.", "garden", question, labels_of(3))
    assert label_match("Fred gave it to Bill", "Bill", "Who did Fred give the apple to?", labels_of(5))


def test_an_accepted_answer_without_normal_form_matches_nothing() -> None:
    assert not substring_match("anything at all", ["The The"])
    assert not substring_match("nope", ["Paris", "The"])
    assert substring_match("in Paris", ["Paris", "The"])
