"""Pictures of the bench as SVG, made again of finished runs.

    python -m fal.theorem.drawn                                   of everything below runs, into docs/results
    python -m fal.theorem.drawn root=elsewhere output=pictures    half a minute

Archives keep the value of every seed, by which some are drawn. Others show weights or every round, which archives do
not keep: the first seed of their cells is measured once more with the settings of the run, and must end at its loss.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic
from fal.theorem.cells import Cell, measure
from fal.theorem.figures import FIGURES
from fal.theorem.printed import cells_in, studies_in
from fal.theorem.words import obey
from fal.theory_config import TheoryConfig, cells_of

PICTURES = {
    "regret": "regret", "phase_map": "phase_map", "flips": "circle", "certified": "circle", "law": "separability",
}  # fmt: skip
"""Figure -> the experiment whose run it shows."""
AGAIN = {"regret": True, "flips": False, "certified": False}
"""Those that need more than the value of every seed -> do they need the regret?"""
FIRST = 6
"""Cells that are measured again, the first ones of a table: wider networks take minutes."""
APART = 1e-2
"""How far a loss may end from that of the run: rounding on another machine tips a few ReLUs."""


def drawn(root: Path, output: Path) -> str:
    """Draw what the runs below `root` show into `output`, as `fal_<figure>.svg`; returns a line for each.

    Raises:
        UserError: no finished run has such a figure, one comes out otherwise, or the place cannot be written to.
    """
    runs = {run.results.experiment: (run, config) for run, config in studies_in(root)}
    lines, again = list[str](), dict[str, list[Cell]]()
    for name, experiment in PICTURES.items():
        run, config = runs.get(experiment, (None, None))
        if run is None or not isinstance(config, TheoryConfig):
            continue
        kept = cells_in(run)
        if name in AGAIN and experiment not in again:
            again[experiment] = measured_again(kept, config, regret=AGAIN[name])
        path = output / f"fal_{name}.svg"
        lines.append(_write(path, svg(name, again[experiment] if name in AGAIN else kept, config)))
    if not lines:
        experiments = ", ".join(dict.fromkeys(PICTURES.values()))
        raise UserError(f"root={root}: no finished run of {experiments}; python -m fal.theory -m +sweep=tables")
    return "".join(lines)


def measured_again(kept: Sequence[Cell], config: TheoryConfig, *, regret: bool) -> list[Cell]:
    """The first cells of a run with records and weights of the first seed.

    Raises:
        UserError: one ends at another loss than the run did.
    """
    found = list[Cell]()
    for old, (change, each) in zip(kept[:FIRST], cells_of(config), strict=False):
        once = replace(each, seeds=1, comparator_steps=each.comparator_steps if regret else 0)
        cell = measure(change, once, trail=True)
        before, now = old.values["robust"][0] or 0.0, cell.values["robust"][0] or 0.0
        if abs(before - now) > APART:
            raise UserError(
                f"{config.experiment}, {change}: the loss ends at {now:.3g} and that of the run at {before:.3g}, so a "
                "picture would not be one of the run; take the revision that made it, or run it again"
            )
        found.append(cell)
    return found


def svg(name: str, cells: Sequence[Cell], config: TheoryConfig) -> bytes:
    """A figure, the same bytes for the same cells."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        made = FIGURES[name](cells, config)
        made.savefig(buffer, format="svg", dpi=72, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"output={path.parent}: cannot be written ({error.strerror or error}); name another") from error
    return f"{path}: {len(data) / 1e3:.0f} kB\n"


def main() -> None:
    """Draw them, or say what is wrong."""
    usual = {"root": "runs", "output": "docs/results"}
    obey("fal.theorem.drawn", __doc__, usual, lambda root, output: drawn(Path(root), Path(output)))


if __name__ == "__main__":
    main()
