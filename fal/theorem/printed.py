"""Tables of the bench and of the toy experiment, made again of finished runs, in Markdown.

    python -m fal.theorem.printed                      of everything below runs
    python -m fal.theorem.printed root=elsewhere

Nothing is trained: means, intervals, exponents and comparisons come of the value of every seed in `table.jsonl`, which
archives keep. Toy runs are one table, a line for each run and level.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common import yamltext
from common.data.textfile import read_json_lines
from common.errors import UserError
from common.run.folder import TABLE
from common.run.progress import duration
from common.run.schema import schema_of, to_typed
from common.tables.runs import Run, command_of, read_runs
from fal.theorem import tables, toy
from fal.theorem.cells import Cell
from fal.theorem.words import obey
from fal.theory_config import TheoryConfig
from fal.toy_config import ToyConfig


def printed(root: Path) -> str:
    """All tables of the finished runs below `root`.

    Raises:
        UserError: there is no such folder, or no such run in it.
    """
    of_bench, of_toy = list[str](), list[tuple[Run, ToyConfig]]()
    for run, config in studies_in(root):
        if isinstance(config, TheoryConfig):
            of_bench.append(_bench(run, config))
        else:
            of_toy.append((run, config))
    return "\n".join(of_bench + ([_toys(of_toy)] if of_toy else []))


def studies_in(root: Path) -> list[tuple[Run, TheoryConfig | ToyConfig]]:
    """The finished runs of `fal.theory` and `fal.toy` below `root` by name and seed, with their settings. A run from
    before there were exponents and notes has those that the file of its experiment holds today.

    Raises:
        UserError: there is no such folder, or no such run in it.
    """
    found = list[tuple[Run, TheoryConfig | ToyConfig]]()
    runs = [run for run in read_runs(root, "fal", None)[0] if (run.folder / TABLE).is_file()]
    for run in sorted(runs, key=lambda each: (each.results.experiment, each.results.seed)):
        schema = schema_of("fal", run.config)
        more = _of_today(run.results.experiment) if schema is TheoryConfig else {}
        config: Any = to_typed(OmegaConf.create({**more, **run.config}), schema)
        if isinstance(config, (TheoryConfig, ToyConfig)):
            found.append((run, config))
    if not found:
        raise UserError(f"root={root}: no finished run of fal.theory or fal.toy; python -m fal.theory -m +sweep=tables")
    return found


def _of_today(experiment: str) -> dict[str, Any]:
    path = files("conf.fal.theory.experiment") / f"{experiment}.yaml"
    content = yamltext.load(path.read_text(encoding="utf-8"), path) if path.is_file() else {}
    return {key: content[key] for key in ("exponents", "note") if key in content}


def cells_in(run: Run) -> list[Cell]:
    """What a finished run found.

    Raises:
        UserError: the file is damaged.
    """
    records = [dict(record) for _, record in read_json_lines(run.folder / TABLE, remedy="run again")]
    return [Cell(_change(record), record["values"]) for record in records]


def _change(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("cell", "values")}


def _bench(run: Run, config: TheoryConfig) -> str:
    cells = cells_in(run)
    tables.add_times(cells, config)
    held = [tables.compared(cells, each, config.confidence) for each in config.references]
    shown = tables.lines(cells, config.columns, config.confidence)
    return _text(
        f"**{config.title}**",
        shown,
        tables.summary(tables.fits_of(cells, config), held, config.note),
        [run],
        config.seeds,
    )


def _toys(runs: Sequence[tuple[Run, ToyConfig]]) -> str:
    cells, held, columns = list[Cell](), list[tables.Compared](), list[str]()
    for run, config in runs:
        own = cells_in(run)
        held += [tables.compared(own, each, config.confidence) for each in config.references]
        cells += [Cell({"run": run.results.experiment, **cell.change}, cell.values) for cell in own]
        columns += [name for name in toy.columns_of(config) if name not in columns]
    first = runs[0][1]
    shown = tables.lines(cells, columns, first.confidence)
    told = tables.summary([], held)
    return _text(f"**{toy.TITLE}**", shown, told, [run for run, _ in runs], first.seeds)


def _text(title: str, shown: tuple[list[str], list[list[str]]], told: list[str], runs: list[Run], seeds: int) -> str:
    seconds = duration(sum(run.results.wall_seconds for run in runs))
    begun = ", ".join(dict.fromkeys(f"`{command_of(run.folder)}`" for run in runs))
    return tables.page(title, *shown, told) + f"\n{seeds} seeds, {seconds}; {begun}\n"


def main() -> None:
    """Print them, or say what is wrong."""
    obey("fal.theorem.printed", __doc__, {"root": "runs"}, lambda root: printed(Path(root)))


if __name__ == "__main__":
    main()
