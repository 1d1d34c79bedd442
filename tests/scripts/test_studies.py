"""A budget study from its sweep to its table and figure, on three runs of a few steps."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.errors import UserError
from reckoning.train import main
from scripts import budget
from tests.runs import run_here

SMALL = ("data.theories={train:6,dev:2,test:2}", "outer.batch_problems=1")
ROWS = {"ft_icr_st": "FT-ICR ST", "ft_icr": "FT-ICR MT", "reckoning_st": "RECKONING ST"}


def test_a_study_is_run_read_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "-m", "+sweep=budget_table1_repaired", "scale=cpu", f"loop.root={tmp_path}", *SMALL, "outer.steps=2",
        "outer.multiples=[1,3]", "outer.lr=0.01", "evaluation.max_new_tokens=2",
        f"hydra.sweeper.rows=[{','.join(ROWS.values())}]",
    ]  # fmt: skip
    assert run_here(main, *words) == 0, capsys.readouterr().err
    scores = {}
    for mark in tmp_path.rglob("FINISHED"):
        records = [json.loads(line) for line in (mark.parent / "metrics.jsonl").read_text().splitlines()]
        (branch,) = [each["branch/accuracy"] for each in records if each["split"] == "branch" and each["step"] == 2]
        (end,) = [each["dev/accuracy"] for each in records if each["split"] == "dev" and each["step"] == 6]
        named = re.search(r"method-(\w+).*outer\.decay-0\.1.*outer\.multiples-_1_3_", mark.parent.name)
        assert named, "what the sweep file says is as if typed"
        scores[named[1]] = (branch, end)

    capsys.readouterr()
    given = ["paper=reckoning", "table=table1_repaired", f"root={tmp_path}", *SMALL]
    picture = tmp_path / "study.svg"
    budget.show([*given, f"output={picture}", "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()[1:]
    for line, (method, row) in zip(lines, ROWS.items(), strict=True):
        branch, end = (f"{100 * score:.1f}" for score in scores[method])
        assert line.startswith(f'Repaired,{row},0.01,0.01,"2, 6","{branch}, {end}",')
    budget.show([*given, "--format", "md"])
    printed = capsys.readouterr().out
    enough = all(abs(end - branch) < 0.02 for branch, end in scores.values())
    assert ("Repaired: 2 steps; beyond them" if enough else "Repaired: still learning.") in printed
    assert "Repaired: not studied: No-Facts; No-Question; Random-Facts; RECKONING MT." in printed

    drawn = ElementTree.fromstring(picture.read_text())
    texts = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert {*ROWS.values(), "outer steps", "seconds", "dev %"} <= {*texts}
    (described,) = [each.text for each in drawn.iter() if each.tag.endswith("desc")]
    assert described and "root=" not in described, "where the runs lay is not told"
    assert len(re.findall(r'<g class="series c\d">', picture.read_text())) == 3 * len(ROWS), "two panels and the legend"


def test_mistakes_are_named(tmp_path: Path) -> None:
    for words, message in (
        (["paper=reckoning"], "table= is missing"),
        (["paper=reckoning", "table=table1", f"root={tmp_path}"], "-m +sweep=budget_table1 scale=cpu makes them"),
        (["paper=reckoning", "table=table9"], "table=table9: reckoning has table1"),
        (["paper=reckoning", "table=table1", "inner.stepz=3"], "no key inner.stepz"),
    ):
        with pytest.raises(UserError) as error:
            budget.show(words)
        assert message in str(error.value)
