"""Tables made again of finished runs: the same as the runs wrote, and as what an archive keeps of them gives."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.tables.runs import read_runs
from fal.theorem import drawn, printed
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


def test_a_run_from_before_there_were_exponents_has_those_of_its_experiment(tmp_path: Path) -> None:
    folder = tmp_path / "fal" / "clients" / "default"
    study(replace(TINY, experiment="clients", grid={"problem.clients": [1, 2]}), folder)
    assert "robust ~ clients^p" not in printed.printed(tmp_path)  # its own: none
    config = folder / "config.yaml"
    kept = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({key: kept[key] for key in kept if key not in ("exponents", "note")}))
    text = printed.printed(tmp_path)
    assert "robust ~ clients^p" in text and "nothing is predicted of it" in text


def test_pictures_are_those_of_the_runs_that_end_as_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "PICTURES", {"flips": "circle", "certified": "circle", "law": "separability"})
    folder = tmp_path / "runs" / "fal" / "circle" / "default"
    study(replace(TINY, experiment="circle", grid={}, references=[]), folder)
    told = drawn.drawn(tmp_path / "runs", tmp_path / "pictures")
    paths = [tmp_path / "pictures" / f"fal_{name}.svg" for name in ("flips", "certified")]
    assert [line.partition(":")[0] for line in told.splitlines()] == [str(path) for path in paths]
    first = [path.read_bytes() for path in paths]
    assert all(each.startswith(b"<?xml") and str(tmp_path).encode() not in each for each in first)
    drawn.drawn(tmp_path / "runs", tmp_path / "pictures")
    assert [path.read_bytes() for path in paths] == first
    table = folder / "table.jsonl"
    (record,) = [json.loads(line) for line in table.read_text().splitlines()]
    record["values"]["robust"][0] += 0.05
    table.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="circle, {}: the loss ends at .* a picture would not be one of the run"):
        drawn.drawn(tmp_path / "runs", tmp_path / "pictures")
    with pytest.raises(UserError, match="no finished run of fal.theory or fal.toy"):
        drawn.drawn(tmp_path / "pictures", tmp_path)


def test_a_folder_without_such_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no finished run of fal.theory or fal.toy"):
        printed.printed(tmp_path)
    monkeypatch.setattr(sys, "argv", ["printed", "folder=runs"])
    with pytest.raises(SystemExit) as stopped:
        printed.main()
    assert stopped.value.code == 2 and "give root=" in capsys.readouterr().err
