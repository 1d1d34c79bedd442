"""Tables as sweeps: which runs they are, what the command line chooses, what is found finished."""

from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.run import results
from common.tables import published, sweep
from tests.common.tables.test_published import TEXT

TABLE = published.parse("paper", TEXT).table("demo")


def test_what_is_typed_multiplies_the_cells_and_rules_run_once() -> None:
    found = sweep.expand(TABLE, [["scale=cpu", "seed=0"], ["scale=cpu", "seed=1"]], [], ["A"])
    methods = [(words[-1], words[1]) for words in found]
    assert sorted(methods) == [
        *(("method=base", f"seed={s}") for s in (0, 1)), *(("method=ours", f"seed={s}") for s in (0, 1)),
        ("method=rules", "seed=0"),
    ]  # fmt: skip
    assert found[0] == ("scale=cpu", "seed=0", "+experiment=demo", "data.hops=2", "method=base")


def test_a_typed_key_of_the_cells_chooses_among_them() -> None:
    found = sweep.expand(TABLE, [["method=ours", "seed=3"]], [], [])
    assert {words[-1] for words in found} == {"data.hops=2", "data.hops=3"}
    assert all("method=ours" in words for words in found)
    with pytest.raises(UserError, match="method=nobody: the cells of demo have method=base, ours, rules"):
        sweep.expand(TABLE, [["method=nobody"]], [], [])


def test_without_a_scale_the_cells_of_the_published_size_are_run() -> None:
    text = TEXT.replace("rows:", "rows:\n      large: {overrides: [method=large], scales: [paper]}")
    table = published.parse("paper", text).table("demo")
    methods = {
        scale: {words[-1] for words in sweep.expand(table, [[*scale]], [], ["A"])} for scale in ((), ("scale=cpu",))
    }
    assert "method=large" in methods[()] and "method=large" not in methods[("scale=cpu",)]


@pytest.mark.parametrize(
    ("word", "why"), [("method.answer_wait=2", "answer_weight"), ("method=nobody", "nobody"), ("seed=x", "seed")]
)
def test_a_cell_that_does_not_compose_is_named_by_file_table_row_and_column(word: str, why: str) -> None:
    text = f"""
tables:
  demo:
    title: A demonstration
    columns: {{A: [+experiment=proofwriter_repaired]}}
    rows: {{good: [seed=1], bad: ["{word}"]}}
"""
    table = published.parse("reckoning", text).table("demo")
    words = ("+experiment=proofwriter_repaired", word)
    with pytest.raises(UserError) as caught, sweep.composing("reckoning") as compose, sweep.naming(table, words):
        sweep.settings_of(compose(words))
    message = str(caught.value)
    assert f"reckoning/published.yaml: demo, row bad, column A: {' '.join(words)} does not compose" in message
    assert why in message


@pytest.fixture
def planned(tmp_path: Path):
    """The jobs of the repaired table's RECKONING cell with a runs folder of our own, and the composer's settings."""

    def plan(*words: str) -> list[sweep.Job]:
        with sweep.composing("reckoning") as compose:
            table = published.read("reckoning").table("table1_repaired")
            typed = [["scale=cpu", f"loop.root={tmp_path}", "outer.steps=1", *words]]
            return sweep.plan(sweep.expand(table, typed, ["RECKONING MT"], []), compose)

    return plan


def finish(job: sweep.Job, folder: Path) -> None:
    """The files of the finished run of `job`, in `folder`."""
    with sweep.composing("reckoning") as compose:
        config = sweep.settings_of(compose(job.overrides))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text("{}")
    interval = results.Interval(1.0, 1, 0.0, 1.0)
    who = results.RunIdentity("reckoning", *job.kind[:1], job.kind[2], job.kind[1], 5)
    written = results.Results(**vars(who), config_hash=job.config_hash, revision="", dirty=None, hardware={},
                              wall_seconds=1.0, peak_memory_bytes=0, test={"accuracy": interval})  # fmt: skip
    results.write(folder, written, [])


def test_a_finished_run_is_found_by_its_settings_whatever_its_folder_is_called(planned, tmp_path: Path) -> None:
    (job,) = planned("seed=5")
    assert not job.finished and not job.begun
    assert job.folder.parent == tmp_path / "reckoning" / "proofwriter_repaired"
    assert job.kind == ("proofwriter_repaired", "cpu", "reckoning")
    elsewhere = tmp_path / "reckoning" / "other" / "name"
    finish(job, elsewhere)
    (job,) = planned("seed=5", "loop.log_every=3")
    assert job.finished_in == elsewhere
    assert not planned("seed=6")[0].finished


def test_the_same_settings_in_other_words_are_run_once(tmp_path: Path) -> None:
    words = ("+experiment=proofwriter_repaired", "scale=cpu", f"loop.root={tmp_path}")
    again, other = (*words, "method=reckoning", "loop.keep=3"), (*words, "method=ft_icr")
    with sweep.composing("reckoning") as compose:
        jobs = sweep.plan([words, again, other], compose)
    assert [job.overrides for job in jobs] == [words, other]


def test_a_begun_run_is_told_from_one_to_start(planned) -> None:
    (job,) = planned()
    (job.folder / "checkpoints" / "step-000100").mkdir(parents=True)
    assert planned()[0].begun
    assert sweep.describe("t", planned()).startswith("t: 1 runs, 0 finished, 1 begun, 0 to start; what they cost")
    assert sweep.ending(planned(), {}) == [
        f"{job.folder}: it ended without a result (killed, cancelled or still waiting)"
    ]
    assert sweep.ending(planned(), {job.overrides: "ValueError: x"}) == [f"{job.folder}: ValueError: x"]
    finish(job, job.folder)
    assert sweep.ending([job], {job.overrides: "the launcher stopped: x"}) == [], "the folder knows better"
