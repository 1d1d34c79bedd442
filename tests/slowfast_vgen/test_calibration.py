"""The calibration table: what each metric sees of known faults, and what it cannot see by what it measures."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from common.run.folder import TABLE
from common.tables.runs import read_runs
from scripts.report import studies
from slowfast_vgen import calibration, evaluate, train
from slowfast_vgen.calibration import METRICS, TRUTH, Calibration, calibrate, visits
from slowfast_vgen.data import world_of
from slowfast_vgen.metrics.features import Encoders
from slowfast_vgen.metrics.lens import Lens
from slowfast_vgen.metrics.spoilt import SPOILT
from slowfast_vgen.worlds.config import DataConfig
from tests.runs import hashes, only_run, run_here
from tests.slowfast_vgen.small import SMALL

WORLD = world_of(DataConfig())


@pytest.fixture(scope="module")
def found(trained: Encoders) -> Calibration:
    return calibrate(WORLD, Lens(trained), seed=0, count=40)


def test_every_row_has_every_metric(found: Calibration) -> None:
    assert list(found.cells) == [TRUTH, *SPOILT]
    assert all(list(cells) == list(METRICS) for cells in found.cells.values())
    assert found.videos == 40 and found.frames == 64


def test_the_truth_has_the_best_of_everything_and_is_never_told_from_itself(found: Calibration) -> None:
    truth = {metric: cell.value for metric, cell in found.cells[TRUTH].items()}
    best = {"psnr": 100, "ssim": 100, "lpips": 0, "src": 100, "fvd": 0, "scuts": 0, "place": 100}
    assert {metric: truth[metric] for metric in best} == pytest.approx(best, abs=1e-4)
    assert not any(cell.seen or cell.expected for cell in found.cells[TRUTH].values())


def test_what_no_metric_can_overlook_or_see_comes_out_as_such(found: Calibration) -> None:
    for row in SPOILT:
        assert found.cells[row]["psnr"].seen and found.cells[row]["ssim"].seen, row
    for row, metric in [("freeze", "scuts"), ("16-frame morph", "scuts"), ("noise", "scuts"), ("freeze", "src")]:
        assert not found.cells[row][metric].seen, (row, metric)
    assert found.cells["freeze"]["scuts"].value == 0
    assert found.cells["freeze"]["src"].value == pytest.approx(100)
    assert found.cells["other world"]["place"].value == pytest.approx(12.5, abs=5)
    assert found.cells["freeze"]["place"].seen
    assert found.cells["freeze"]["fvd"].value > found.cells["other world"]["fvd"].value
    assert found.scale is not None and found.scale.ceiling == pytest.approx(100) and found.scale.floor < 60


def test_the_table_marks_what_is_not_seen_and_what_contradicts(
    found: Calibration, capsys: pytest.CaptureFixture
) -> None:
    Console(width=160).print(found.table())
    printed = capsys.readouterr().out
    assert "Calibration on 40 true videos of 64 frames" in printed and "(100.00)" in printed
    cells = [cell for row in found.cells.values() for cell in row.values()]
    assert len(found.surprises()) == sum(str(cell).endswith("!") for cell in cells)
    assert str(calibration.Cell(1.5, seen=True, expected=True)) == "1.50"
    assert str(calibration.Cell(1.5, seen=True, expected=False)) == "1.50 !"
    assert str(calibration.Cell(1.5, seen=False, expected=True)) == "(1.50) !"


def test_a_run_calibrates_its_world_and_names_surprises(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_here(train.main, *SMALL, "method=slow", f"loop.root={tmp_path}") == 0
    folder = only_run(tmp_path)
    before = hashes(folder)
    words = ("calibrate=true", "episodes=12", "features.steps=20", "features.batch=16")
    assert run_here(evaluate.main, f"run={folder}", *words) == 0
    printed = capsys.readouterr().out
    found = json.loads((folder / "calibration.json").read_text())
    assert "Calibration on 12 true videos of 64 frames" in printed
    assert list(found["cells"]) == [TRUTH, *SPOILT] and list(found["cells"][TRUTH]) == list(METRICS)
    cells = [(row, metric, cell) for row, cells in found["cells"].items() for metric, cell in cells.items()]
    differs = [f"{metric} {row}" for row, metric, cell in cells if cell["seen"] != cell["expected"]]
    assert differs and len(found["surprises"]) == len(differs)
    assert all(f"! {surprise}\n" in printed for surprise in found["surprises"])
    assert "SCuts does not tell splice from the truth" in found["surprises"]  # every frame of the rooms differs as much
    assert set(found["encoders"]) == set(found["right_on_dev"]) == {"place", "motion", "inverse"}
    after = {path: digest for path, digest in hashes(folder).items() if "calibration" not in path and path != TABLE}
    assert after == before
    (block,) = studies.blocks(read_runs(tmp_path, None, None)[0])
    assert block.table is not None and block.title == "Calibration on 12 true videos of 64 frames"
    assert [line.cells[0].text for line in block.table.lines] == [TRUTH, *SPOILT]
    splice = next(line for line in block.table.lines if line.cells[0].text == "splice")
    assert "SCuts !" in splice.cells[1].text and block.notes[0].startswith("Not told:")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("longer=[4]", "longer=[4] with calibrate=true: nothing is generated or tracked; leave longer out"),
        ("controls=[swapped]", 'controls=["swapped"] with calibrate=true'),
        ("tracker=wandb", 'tracker="wandb" with calibrate=true'),
        ("episodes=2", "episodes=2 with calibrate=true: use 3 or more, or 0 for 320"),
        ("episodes=-1", "episodes=-1 with calibrate=true: use 3 or more, or 0 for 320"),
    ],
)
def test_a_calibration_refuses_what_it_does_not_take(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_here(evaluate.main, f"run={tmp_path}", "calibrate=true", word) == 2
    assert message in capsys.readouterr().err


def test_visits_pair_a_return_with_the_first_time() -> None:
    places = np.array([[0, 1, 2, 1, 0, 0], [3, -1, 3, 3, -1, 3]])
    gaps = np.array([[-1, -1, -1, 1, 3, 0], [-1, -1, 1, 0, -1, 1]])
    assert visits(places, gaps) == [(0, 1, 3), (0, 0, 4), (1, 0, 2), (1, 0, 5)]
