"""The normal form of answers."""

import pytest

from common.language.normal import normalise


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" The  Cat, an AIM; 49.3! ", "cat aim 493"),
        ("a theme in another anthem", "theme in another anthem"),
        ("mother-in-law", "motherinlaw"),
        ("The.", ""),
    ],
)
def test_case_punctuation_articles_and_blanks_are_gone(text: str, normal: str) -> None:
    assert normalise(text) == normal == normalise(normal)
