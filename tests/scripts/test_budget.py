"""A budget study from its sweep to its table and figure, on four runs of a few steps."""

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
ROWS = ("FT-ICR ST", "RECKONING ST")


def test_a_study_is_run_read_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "-m", "+sweep=budget_table1_repaired", "scale=cpu", f"loop.root={tmp_path}", *SMALL, "outer.steps=2",
        "outer.multiples=[1,3]", "outer.lr=0.001,0.01", "evaluation.max_new_tokens=2",
        f"hydra.sweeper.rows=[{','.join(ROWS)}]",
    ]  # fmt: skip
    assert run_here(main, *words) == 0, capsys.readouterr().err
    folders = sorted(mark.parent for mark in tmp_path.rglob("FINISHED"))
    assert len(folders) == 4 and all("outer.multiples-_1_3_" in folder.name for folder in folders)
    scores = {}
    for folder in folders:
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        (branch,) = [each["branch/accuracy"] for each in records if each["split"] == "branch" and each["step"] == 2]
        (end,) = [each["dev/accuracy"] for each in records if each["split"] == "dev" and each["step"] == 6]
        rate, method = re.search(r"outer\.lr-([\d.]+)", folder.name), re.search(r"method-(\w+)", folder.name)
        assert rate and method
        scores[method[1].split("+")[0], float(rate[1])] = (end, branch)

    capsys.readouterr()
    given = ["paper=reckoning", "table=table1_repaired", f"root={tmp_path}", *SMALL]
    picture = tmp_path / "study.svg"
    budget.show([*given, f"output={picture}", "--format", "csv"])
    _, first, second = capsys.readouterr().out.splitlines()
    for line, row, method in ((first, ROWS[0], "ft_icr_st"), (second, ROWS[1], "reckoning_st")):
        best = max((scores[method, rate], -rate) for rate in (0.001, 0.01))
        (end, branch), rate = best[0], -best[1]
        assert line.startswith(f'Repaired,{row},"0.001, 0.01",{rate:g},"2, 6","{100 * branch:.1f}, {100 * end:.1f}",')
    budget.show([*given, "--format", "md"])
    changes = {abs(scores[m, r][0] - scores[m, r][1]) for m, r in best_of(scores).items()}
    said = "Repaired: 2 steps; beyond them" if max(changes) < 0.02 else "Repaired: still learning."
    printed = capsys.readouterr().out
    assert said in printed
    assert "Repaired: not studied: No-Facts; No-Question; Random-Facts; FT-ICR MT; RECKONING MT." in printed

    drawn = ElementTree.fromstring(picture.read_text())
    texts = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert {*ROWS, "outer steps", "seconds", "dev %"} <= {*texts}
    (described,) = [each.text for each in drawn.iter() if each.tag.endswith("desc")]
    assert described and str(tmp_path) not in described.replace(f"output={picture}", "")
    marks = re.findall(r'<g class="series c\d">', picture.read_text())
    assert len(marks) == 2 * len(ROWS) + len(ROWS), "two panels and the legend"


def best_of(scores: dict[tuple[str, float], tuple[float, float]]) -> dict[str, float]:
    """Method -> its best rate."""
    methods = {method for method, _ in scores}
    return {m: -max((scores[m, rate], -rate) for name, rate in scores if name == m)[1] for m in methods}


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
