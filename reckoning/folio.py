"""Reader of FOLIO v0.0: premises in plain English, a conclusion, one of three labels (paper, section 4.3)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.given import check_names, name_of
from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.problems import Problem, Question, check_fields, content_key, known_label

FIELDS = {"premises": list, "conclusion": str, "label": str}
SAME = {"uncertain": "unknown"}
"""The validation file's word for the third label."""
RELEASE = {
    "train": {"true": 388, "false": 286, "unknown": 330},
    "test": {"true": 72, "false": 63, "unknown": 69},
}
"""Labels of the release's two files; the validation file is the authors' test set."""


def cleaned(sentence: str) -> str:
    """The sentence as the authors write it: hyphens become blanks, full stops vanish, abbreviations' ones too."""
    return " ".join(sentence.replace("-", " ").replace(".", "").split())


def read_folio(path: Path, labels: Mapping[str, str] | None = None) -> list[Problem]:
    """One problem a conclusion, in the order of the file. All premises are relevant: they are K' without distractors.

    `theory` is the content key of the premises; as a story has one set of premises, splits by theory are splits by
    story. Answers are true, false or unknown, and keys of `labels` where given. Kinds and depths are not known. Empty
    premises, of which the release has a story with one, are left out.

    Raises:
        UserError: `path:line: what is wrong; remedy`, also for a story that changes its premises.
    """
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    stories: dict[str, tuple[str, int]] = {}
    for number, record in read_json_lines(
        path, remedy="point data.root at the folder with folio-train.jsonl", own=False
    ):
        where = f"{path}:{number}"
        check_fields(record, FIELDS, where)
        check_names(record, (*FIELDS, "example_id", "story_id"), where, {})
        if not all(isinstance(premise, str) for premise in record["premises"]):
            raise UserError(f"{where}: premises={record['premises']!r} is not a list of sentences; correct the line")
        facts = tuple(filter(None, map(cleaned, record["premises"])))
        text = cleaned(record["conclusion"])
        if not facts:
            raise UserError(f"{where}: premises={record['premises']!r} holds no sentence; fill it in")
        if not text:
            raise UserError(f"{where}: conclusion is empty; fill it in")
        name = name_of(record.get("example_id"), "example_id", where) or f"{path.name.split('.')[0]}:{number}"
        if name in lines:
            raise UserError(
                f"{where}: example_id {name!r} was used in line {lines[name]}; give every line an id of its own"
            )
        lines[name] = number
        theory = content_key(facts)
        if (story := name_of(record.get("story_id"), "story_id", where)) is not None:
            first = stories.setdefault(story, (theory, number))
            if first[0] != theory:
                raise UserError(
                    f"{where}: story {story} has other premises than in line {first[1]}, so stories would "
                    "cross splits; give it a story_id of its own"
                )
        label = record["label"].strip().lower()
        answer = known_label(SAME.get(label, label), labels, where)
        question = Question(name, text, answer, tuple(range(len(facts))))
        problems.append(Problem(name, theory, facts, (), (question,)))
    return problems


def check_release(split: str, problems: Sequence[Problem]) -> None:
    """Hold the labels of a file against the release's.

    Raises:
        UserError: the counts differ, or the split has no file in the release.
    """
    if split not in RELEASE:
        raise UserError(f"FOLIO v0.0 has no {split} file; leave data.files.{split} null to cut it from train by story")
    found = Counter(question.answer for problem in problems for question in problem.questions)
    if found != RELEASE[split]:
        there, expected = ({label: counts[label] for label in RELEASE[split]} for counts in (found, RELEASE[split]))
        raise UserError(
            f"FOLIO {split}: {sum(found.values())} conclusions {there}, the release has "
            f"{sum(expected.values())} {expected}; use the files of FOLIO v0.0 or set data.check_counts=false"
        )
