"""Reader of the original CLUTRR-SG files, one story a line.

The data are those of "Measuring Systematic Generalization in Neural Proof Generation with Transformers" (Gontier,
Sinha, Reddy, Pal; NeurIPS 2020; github NicolasAG/SGinPG), made with CLUTRR (facebookresearch/clutrr, CC BY-NC 4.0).
A line is `<STORY> ... <QUERY> ... <PROOF> ... <ANSWER> ...`; persons are `ent_1` to `ent_20`.
"""

import re
from pathlib import Path

from common.data.textfile import read_lines
from common.errors import UserError
from reckoning.clutrr.kinship import words_in
from reckoning.problems import Problem, Question, content_key, without_full_stop

SECTIONS = ("STORY", "QUERY", "ANSWER")
MARKER = re.compile(r"<(STORY|QUERY|PROOF|ANSWER)>")
FORM = "<STORY> ... <QUERY> ... <PROOF> ... <ANSWER> ..."


def read_text(path: Path, hops: int | None = None) -> list[Problem]:
    """One problem a line, in the order of the file; all sentences are relevant, in the order of the story.

    The proof is dropped, the story cut at its full stops, `ent_3` becomes `person 3`. The answer is the kinship word in
    the last section, which may be a sentence. `hops`, where given, is how many sentences every story must have.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    remedy = "point data.root at the folder that holds forward/train, forward/valid and forward/test"
    problems = []
    for number, line in read_lines(path, remedy=remedy):
        where = f"{path}:{number}"
        sections = _sections(line, where)
        facts = tuple(filter(None, map(without_full_stop, sections["STORY"].split("."))))
        if not facts:
            raise UserError(f"{where}: the story is empty; remove the line")
        if hops is not None and len(facts) != hops:
            raise UserError(
                f"{where}: a story of {len(facts)} sentences in a file of {hops} hops; correct the line, or name the "
                "files of this many hops in data.files"
            )
        if not sections["QUERY"]:
            raise UserError(f"{where}: the query is empty; each line is {FORM}")
        answers = set(words_in(sections["ANSWER"]))
        if len(answers) != 1:
            raise UserError(
                f"{where}: {len(answers)} kinship words in the answer {sections['ANSWER']!r}, one is needed; correct it"
            )
        name = f"{path.name.split('.txt')[0]}:{number}"
        question = Question(name, sections["QUERY"], answers.pop(), tuple(range(len(facts))), len(facts))
        problems.append(Problem(name, content_key(facts), facts, (), (question,)))
    return problems


def _sections(line: str, where: str) -> dict[str, str]:
    before, *rest = MARKER.split(line)
    names, texts = rest[::2], rest[1::2]
    if before.strip() or len(set(names)) < len(names) or not set(SECTIONS) <= set(names):
        found = " ".join(f"<{name}>" for name in names) or "none"
        raise UserError(f"{where}: the markers are {found}; each line is {FORM}")
    return {name: _plain(text) for name, text in zip(names, texts, strict=True)}


def _plain(text: str) -> str:
    """Persons named, and the blanks that a tokenizer put before punctuation removed."""
    text = re.sub(r"\bent_(\d+)", r"person \1", text)
    return " ".join(re.sub(r"\s+(?='s\b|[?.,])", "", text).split())
