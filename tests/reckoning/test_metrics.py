"""Label accuracy and fact recall as the released code defines them."""

import pytest

from reckoning.metrics import normalise, recall_of, split_response

FACTS = ["Anne is kind", "If someone is kind then they are red"]
COMMA = ["Nice, round people are furry", "The cat is big"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The Cat,  is BIG. ", "cat is big"),
        ("An apple and a pear", "apple and pear"),
        ("another theatre", "another theatre"),
        ("son-in-law", "soninlaw"),
        ("Son - in - Law", "soninlaw"),  # as word pieces are joined again
        ("The.", ""),
    ],
)
def test_normal_form_has_no_case_punctuation_or_articles(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("yes because Anne is kind", "yes"),
        ("yes", "yes"),
        ("yes Anne is kind", "yes"),  # without "because": the first word
        ("yes,no because Anne is kind", "yes"),  # cut at a comma
        ("none.", "none."),
        ("I think yes because of it", "I think yes"),  # everything before "because"
        ("becausebecause", ""),
        ("", ""),
        (" , yes", ""),
    ],
)
def test_the_label_is_what_stands_before_because(response: str, label: str) -> None:
    assert split_response(response)[0] == label


@pytest.mark.parametrize("rest", ["", " because Anne is kind", ", because", " Anne"])
def test_a_label_with_hyphens_is_one_word(rest: str) -> None:
    assert split_response(f"mother - in - law{rest}")[0] == split_response(f"mother-in-law{rest}")[0] == "mother-in-law"
    assert normalise("mother-in-law") not in (normalise("mother"), normalise("mother in law"))


def test_a_label_of_two_words_is_read_whole_where_two_are_expected() -> None:
    assert split_response("New York City", 2) == ("New York", "")
    assert split_response("New York because of it", 2) == ("New York", "of it")
    assert split_response("New York because of it", 1) == ("New York", "of it")


def test_what_follows_the_first_because_is_recited() -> None:
    assert split_response("no because Anne is kind,because")[1] == "Anne is kind,because"


def test_an_exact_recitation_in_any_order_is_exact() -> None:
    got = recall_of("if someone is kind then they are red , anne is kind.", FACTS)
    assert (got.pieces, got.matching, got.precision, got.recall, got.exact) == (2, 2, 1, 1, True)


def test_a_missing_fact_costs_recall_but_not_the_authors_number() -> None:
    got = recall_of("Anne is kind", FACTS)
    assert (got.pieces, got.matching, got.precision, got.recall, got.exact) == (1, 1, 1, 0.5, False)


def test_a_short_piece_matches_by_substring_in_the_authors_number_alone() -> None:
    got = recall_of("kind,is,re,Anne is kind", FACTS)
    assert (got.pieces, got.matching) == (4, 4)
    assert (got.precision, got.recall, got.exact) == (0.25, 0.5, False)


def test_an_invented_fact_costs_precision() -> None:
    got = recall_of("Anne is kind,If someone is kind then they are red,Bob is big", FACTS)
    assert (got.pieces, got.matching, got.recall, got.exact) == (3, 2, 1, False)
    assert got.precision == pytest.approx(2 / 3)


def test_a_fact_with_a_comma_is_two_pieces_for_the_authors_and_one_for_us() -> None:
    got = recall_of("Nice, round people are furry,The cat is big", COMMA)
    assert (got.pieces, got.matching) == (3, 3)
    assert (got.precision, got.recall, got.exact) == (1, 1, True)
    half = recall_of("Nice,The cat is big", COMMA)
    assert (half.pieces, half.matching, half.precision, half.recall, half.exact) == (2, 2, 0.5, 0.5, False)


def test_a_comma_without_a_blank_is_the_same_comma() -> None:
    assert recall_of("1,000 cats are red", ["1,000 cats are red"]).exact
    assert recall_of("1, 000 cats are red", ["1,000 cats are red"]).exact


def test_repeating_a_fact_counts_once_in_the_set() -> None:
    got = recall_of("Anne is kind,Anne is kind", FACTS)
    assert (got.pieces, got.matching, got.precision, got.recall) == (2, 2, 1, 0.5)


@pytest.mark.parametrize("recited", ["", " , ,", "the"])
def test_nothing_recited_is_no_piece(recited: str) -> None:
    got = recall_of(recited, FACTS)
    assert (got.pieces, got.matching, got.precision, got.recall, got.exact) == (0, 0, 0, 0, False)
