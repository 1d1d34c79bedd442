"""The words of commands, and the one line that a mistake ends in."""

import pytest

from common.errors import UserError
from scripts.words import mistakes_told, values_of

KEYS = ("root", "paper")


def test_words_become_values_and_the_last_of_a_key_counts() -> None:
    assert values_of([], KEYS) == {}
    assert values_of(["root=a", "paper=x=y", "root="], KEYS) == {"root": "", "paper": "x=y"}


@pytest.mark.parametrize("word", ["root", "=x", "rot=x", "Root=x"])
def test_other_words_are_refused_with_those_that_are_known(word: str) -> None:
    with pytest.raises(UserError) as caught:
        values_of(["root=a", word], KEYS)
    assert str(caught.value) == f"{word}: write root=<...>, paper=<...>; --help shows examples"


def test_a_mistake_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for code, given in ((2, mistakes_told()), (1, mistakes_told(1))):
        with pytest.raises(SystemExit) as stopped, given:
            raise UserError("root=x: no such folder")
        assert stopped.value.code == code
        assert capsys.readouterr() == ("", "error: root=x: no such folder\n")
    with pytest.raises(ZeroDivisionError), mistakes_told():
        raise ZeroDivisionError
