"""Figures of one run, drawn with matplotlib: its learned rates and its learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from common.run.rate_record import RateRecord


def rates_map(record: RateRecord) -> Figure:
    """Heat maps by layer and inner step: the rates before training and as tested, on one colour scale."""
    import numpy as np
    from matplotlib.figure import Figure

    first, last = record.by_layer(record.at(0)), record.by_layer(record.at())
    maps = {"before training": np.array(list(first.values())), "as tested": np.array(list(last.values()))}
    low, high = min(values.min() for values in maps.values()), max(values.max() for values in maps.values())
    figure = Figure(figsize=(3.5 + 0.5 * maps["as tested"].shape[1] * 2, 1.5 + 0.25 * len(first)), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 2, sharey=True), maps.items(), strict=True):
        image = axes.imshow(values, aspect="auto", vmin=low, vmax=high, cmap="viridis")
        axes.set(title=title, xlabel="inner step", xticks=range(values.shape[1]))
        axes.set_xticklabels([str(step) for step in range(1, values.shape[1] + 1)])
        axes.set_yticks(range(len(first)), list(first), fontsize="small")
    figure.colorbar(image, ax=figure.axes, label="rate, mean of a layer")
    return figure


def learning_curve(records: Sequence[Mapping[str, Any]], metric: str) -> Figure | None:
    """Outer loss and the dev `metric` that selects the weights against outer steps, of records of `metrics.jsonl`; None
    if there is neither.
    """
    from matplotlib.figure import Figure

    series = {
        name: [(r["step"], r[name]) for r in records if isinstance(r.get(name), (int, float))]
        for name in ("train/outer_loss", f"dev/{metric}")
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    figure = Figure(figsize=(6, 2 + 1.5 * len(series)), layout="constrained")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, points) in zip(panels, series.items(), strict=True):
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("outer step")
    return figure


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure drawn: [height, width, 4], red, green, blue and opacity."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib does not type its methods
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
