"""Tables made again of finished runs: the same as the runs wrote, and as what an archive keeps of them gives."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.tables.runs import read_runs
from fal.theorem import printed
from fal.theorem.config import FederatedConfig, NetworkConfig
from fal.theory import study
from fal.theory_config import FitConfig, ReferenceConfig, TheoryConfig
from fal.toy import study as toy_study
from fal.toy_config import StableConfig, ToyConfig
from scripts.archive import __main__ as archive
from scripts.report import studies

TINY = TheoryConfig(
    experiment="tiny", title="Tiny", seeds=2, comparator_steps=5, network=NetworkConfig(width=16),
    federated=FederatedConfig(rounds=10), grid={"federated.step": [0.8, 3.2], "network.pseudo": [False, True]},
    columns=["robust", "rounds_to_0.5", "regret_over"], fits=[FitConfig("robust", "time")],
    references=[ReferenceConfig({"federated.step": 0.8}, "robust", 1.0)],
)  # fmt: skip
TOY = ToyConfig(
    experiment="one", scales=[2.5, 0.85], rates=[0.05], train=80, test=40, hidden=8, batch=10, local_steps=1, rounds=2,
    moments=[1, 2], seeds=2, stable=StableConfig(low=1e-6, high=1e-5, halvings=1),
)  # fmt: skip


def without_commands(text: str) -> list[str]:
    """A test's command may hold a path, which no archive keeps."""
    return [line for line in text.splitlines() if " seeds, " not in line]


def test_printed_tables_are_those_of_the_runs_and_of_their_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("runs")
    study(TINY, root / "fal" / "tiny" / "default")
    for name, steps in (("one", 1), ("two", 2)):
        toy_study(replace(TOY, experiment=name, local_steps=steps), root / "fal" / name / "default")
    text = printed.printed(root)
    _, _, table = (root / "fal" / "tiny" / "default" / "table.md").read_text().partition("\n\n")
    assert text.startswith(f"**Tiny**\n\n{table}\n2 seeds, ") and "robust ~ time^p" in table and "before 1" in table
    assert "| one | 2.5 | 0.05 |" in text and "| two | 0.85 | 0.05 |" in text and "- (0 of 2) |" in text
    archive.pack("fal", root)
    archive.unpack("fal", Path("back"))
    assert not list(Path("back").rglob("records.jsonl"))
    one, tiny, two = studies.blocks(read_runs(Path("back"), "fal", None)[0])
    assert [each.title for each in (one, tiny, two)] == ["one", "Tiny", "two"]
    assert tiny.table is not None and one.table is not None
    assert [head.text for head in tiny.table.head] == ["step", "pseudo", "robust", "rounds to 0.5", "regret over"]
    first = tiny.table.lines[0].cells
    assert [cell.text for cell in first[:2]] == ["0.8", "False"] and first[3].text == "–" and first[3].small == "0 of 2"
    assert f"| {first[2].text} ± " in table and " to " in first[2].small
    assert one.table.lines[0].cells[-1].small == "0 of 2"  # stable up to the end of the search
    assert without_commands(printed.printed(Path("back"))) == without_commands(text)


def test_a_folder_without_such_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no finished run of fal.theory or fal.toy"):
        printed.printed(tmp_path)
    monkeypatch.setattr(sys, "argv", ["printed", "folder=runs"])
    with pytest.raises(SystemExit) as stopped:
        printed.main()
    assert stopped.value.code == 2 and "give root=" in capsys.readouterr().err
