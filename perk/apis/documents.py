"""API documents: the form that a context shows, and readers of two published forms.

APIBench (Patil et al., Gorilla; Apache-2.0) has one object a line with `api_data` and, in `code`, an instruction.
PERK's sample (MIT) has whole problems: {context: [documents], location, question, answer}.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.jsonfile import read_objects
from common.errors import UserError
from perk.apis.config import Position

FIELDS = ("domain", "framework", "functionality", "api_name", "api_arguments", "python_environment_requirements",
          "example_code", "performance", "description")  # fmt: skip
LOCATIONS = tuple(Position)
_INSTRUCTION = re.compile(r"Instruction:?\s*(.*?)\s*(?:#*\s*Output\b|\Z)", re.DOTALL)
_CALL = re.compile(r"<api>(.*?)</api>", re.DOTALL)


@dataclass(frozen=True)
class Api:
    """A call and the document about it."""

    call: str
    document: str


@dataclass(frozen=True)
class Wanted:
    """An instruction and the API that answers it."""

    id: str
    instruction: str
    api: Api


@dataclass(frozen=True)
class Placed:
    """A whole published problem."""

    id: str
    context: tuple[str, ...]
    location: str
    question: str
    answer: str


def document_of(call: str, data: Mapping[str, Any]) -> str:
    """The document as PERK's samples show it, on one line."""
    parts = [f"{field}: {_plain(data[field])}" for field in FIELDS if field in data]
    return f"<api>{call}</api> {', '.join(parts)}"


def call_of(document: str) -> str:
    """The call of a document, its final full stop left out as in the published answers; "" where it names none."""
    found = _CALL.search(document)
    return found[1].strip().removesuffix(".") if found else ""


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(each)}" for name, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return re.sub(r"\s*\n\s*", r"\\n", str(value).strip())


def read_wanted(path: Path) -> Iterator[Wanted]:
    """Instructions of an APIBench file.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    for line, value in read_objects(path, remedy="give the path of an APIBench file, such as huggingface_train.json"):
        where = f"{path}:{line}"
        data, code = value.get("api_data"), value.get("code")
        if not isinstance(data, dict) or not isinstance(code, str):
            raise UserError(f"{where}: api_data and code are needed, found {sorted(value)}; take APIBench's train file")
        call = str(value.get("api_call") or data.get("api_call") or "").strip()
        found = _INSTRUCTION.search(code)
        if not call or found is None or not found[1]:
            raise UserError(f"{where}: no api_call, or no text after `Instruction:` in code; correct the line")
        yield Wanted(
            f"{path.name.split('.')[0]}:{line}", found[1], Api(call.removesuffix("."), document_of(call, data))
        )


def is_placed(path: Path) -> bool:
    """Does a file hold whole problems, not instructions alone?"""
    return "context" in next(iter(read_objects(path)))[1]


def read_placed(path: Path) -> Iterator[Placed]:
    """Problems in the form of PERK's sample: one object, several, or an array of them.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    for line, value in read_objects(path, remedy="give the path of a LongGorilla file"):
        where = f"{path}:{line}"
        context = value.get("context")
        if not isinstance(context, list) or not context or not all(isinstance(each, str) and each for each in context):
            raise UserError(f"{where}: context={str(context)[:40]}: a list of documents is needed; correct the line")
        for field in ("location", "question", "answer"):
            if not isinstance(value.get(field), str) or not value[field].strip():
                raise UserError(f"{where}: {field}={value.get(field)!r}: a string with content is needed")
        if value["location"] not in LOCATIONS:
            raise UserError(f"{where}: location={value['location']!r}: use one of {', '.join(LOCATIONS)}")
        calls = [call_of(document) for document in context]
        if "" in calls:
            raise UserError(f"{where}: context[{calls.index('')}] holds no <api>...</api>; correct the line")
        answer = value["answer"].strip().removesuffix(".")
        if answer not in calls:
            raise UserError(f"{where}: answer {answer!r} is the call of no document in the context; correct the line")
        name = f"{path.name.split('.')[0]}:{line}"
        yield Placed(name, tuple(context), value["location"], value["question"].strip(), answer)
