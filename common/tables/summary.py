"""What a run reports of its test items: every metric with its interval, in all and by slice."""

from collections.abc import Iterable, Mapping, Sequence

from common.run.items import Item, slice_of
from common.run.results import Interval
from common.tables.intervals import Kind, ratio_interval


def interval_of(items: Iterable[Item], metric: str, kind: Kind = Kind.share, confidence: float = 0.95) -> Interval:
    """A metric of items (`accuracy`, `accuracy@depth_3`) with its interval.

    Raises:
        ValueError: no item has it.
    """
    if not (counted := _counted(items, metric)):
        raise ValueError(f"no item has {metric}")
    parts, wholes = zip(*(item.scores[slice_of(metric)[0]] for item in counted), strict=True)
    return ratio_interval(kind, parts, [item.group for item in counted], wholes, confidence)


def _counted(items: Iterable[Item], metric: str) -> list[Item]:
    name, chosen, value = slice_of(metric)
    return [item for item in items if name in item.scores and item.counts(chosen, value)]


def summarise(
    items: Sequence[Item],
    confidence: float,
    *,
    by: Mapping[str, Sequence[str]],
    kinds: Mapping[str, Kind] | None = None,
    exact: Sequence[str] = (),
) -> dict[str, Interval]:
    """Every metric of a split with its interval, in all and by slice: what `results.json` says of a run.

    Args:
        items: of the split and of further passes over it.
        confidence: two-sided.
        by: metric -> slices that it is reported by.
        kinds: of metrics that are no shares.
        exact: metrics that are known without counting, such as chance: their intervals have no width.
    """
    found: dict[str, Interval] = {}
    for metric in dict.fromkeys(metric for item in items for metric in item.scores):
        names = [metric] if any(metric in item.scores and item.counts() for item in items) else []
        for chosen in by.get(metric, ()):
            there = [item for item in items if metric in item.scores and item.further in ("", chosen)]
            values = {item.slices[chosen] for item in there if chosen in item.slices}
            ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
            names += [f"{metric}@{chosen}_{value}" for value in ordered]
        kind = (kinds or {}).get(metric, Kind.share)
        if kind is not Kind.share:  # a share of nothing is 0, but a mean of nothing is no number
            names = [name for name in names if any(item.scores[metric][1] for item in _counted(items, name))]
        for name in names:
            whole = interval_of(items, name, kind, confidence)
            found[name] = Interval(whole.value, whole.count, whole.value, whole.value) if metric in exact else whole
    return found
