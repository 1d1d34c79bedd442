"""Kinship facts and questions in words; the sentences are data, in `templates.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

Fact = tuple[str, str, str]
"""(who, word, of): who is the `word` of `of`."""


@cache
def _sentences() -> dict[str, Any]:
    from common import yamltext

    path = Path(__file__).with_name("templates.yaml")
    return yamltext.load(path.read_bytes(), path)


def fact_text(fact: Fact, pattern: int = 0) -> str:
    """`person 3 is a son of person 7`; pattern 0 is the plain one."""
    who, word, of = fact
    patterns = _sentences()["facts"][word]
    return patterns[pattern % len(patterns)].format(who=who, of=of)


def question_text(who: str, of: str) -> str:
    """`how is person 3 related to person 7?`, to be answered by what person 3 is to person 7."""
    return _sentences()["question"].format(who=who, of=of)
