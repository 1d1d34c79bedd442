"""A look at what a loss reads tells one state from another, wherever the number stands."""

import sys
import threading
import types
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from common.engine.reached import reached

Case = tuple[Callable[..., Any], Callable[[], Any]]
"""A loss, and a change of what it reads."""


class Share(float):
    """A number of a class of its own."""


class Holder:
    share = 1.0


def of_own_class() -> Case:
    box = [Share(1.0)]
    return lambda w, part: box[0], lambda: box.__setitem__(0, Share(3.0))


def bound_builtin() -> Case:
    settings = {"share": 1.0}
    read = settings.get
    return lambda w, part: read("share"), lambda: settings.update(share=3.0)


def of_a_thread() -> Case:
    own = threading.local()
    own.share = 1.0
    return lambda w, part: own.share, lambda: setattr(own, "share", 3.0)


def imported_inside() -> Case:
    module: Any = types.ModuleType("tests.settings_of_a_user")
    module.SHARE = 1.0
    sys.modules[module.__name__] = module

    def loss(w: Any, part: Any) -> Any:
        from tests.settings_of_a_user import SHARE  # type: ignore[import-not-found]

        return SHARE

    return loss, lambda: setattr(module, "SHARE", 3.0)


def of_a_command() -> Case:
    names: dict[str, Any] = {"__name__": "__main__", "share": 1.0}
    exec("def loss(w, part): return share", names)  # file <string>, as of python -c
    return names["loss"], lambda: names.update(share=3.0)


def default_of_a_table() -> Case:
    table: defaultdict[str, float] = defaultdict(lambda: 1.0)
    return lambda w, part: table["share"], lambda: setattr(table, "default_factory", lambda: 3.0)


def weakly_held() -> Case:
    holder = Holder()
    seen = weakref.ref(holder)
    return lambda w, part: seen().share, lambda: setattr(holder, "share", 3.0)


@pytest.mark.parametrize(
    "case",
    [of_own_class, bound_builtin, of_a_thread, imported_inside, of_a_command, default_of_a_table, weakly_held],
)
def test_another_value_is_another_state(case: Callable[[], Case]) -> None:
    loss, change = case()
    before = reached(loss)
    assert reached(loss).values == before.values
    change()
    assert reached(loss).values != before.values
