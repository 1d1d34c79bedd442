"""Actions: free text to ids and back."""

import pytest

from common.errors import UserError
from slowfast_vgen.actions import NULL, Actions, paired

TURNS = paired(("turn left", "turn right"), ("Go forward", "go back"))


def test_each_name_has_an_id_and_comes_back_from_it() -> None:
    assert [TURNS.id(name) for name in TURNS.names] == [1, 2, 3, 4]
    assert [TURNS.text(id) for id in range(TURNS.count)] == ["", "turn left", "turn right", "Go forward", "go back"]
    assert TURNS.id("") == NULL


def test_case_and_blanks_make_no_other_action() -> None:
    assert TURNS.id("  Turn   LEFT ") == 1 and TURNS.id("go forward") == 3


def test_an_inverse_takes_back_and_is_taken_back() -> None:
    assert [TURNS.inverse(id) for id in range(TURNS.count)] == [0, 2, 1, 4, 3]


def test_an_unknown_action_names_the_closest() -> None:
    with pytest.raises(UserError, match="action 'turn rigt' is unknown: did you mean 'turn right'\\? known are turn l"):
        TURNS.id("turn rigt")


def test_an_action_without_inverse_says_so() -> None:
    with pytest.raises(UserError, match="action 'stop' has no inverse; those with one are none"):
        Actions(("stop",)).inverse(1)


def test_names_that_are_one_up_to_case_are_refused() -> None:
    with pytest.raises(UserError, match="'go' is blank or stands twice in go, Go; name each once"):
        Actions(("go", "Go"))
