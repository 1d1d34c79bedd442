"""Confidence intervals of means and ratios over items that come in groups that hang together."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from enum import Enum
from statistics import NormalDist

from common.run.results import Interval


class Kind(Enum):
    """What a metric is, which decides its interval."""

    share = "share"
    """Of a whole: between 0 and 1, Wilson's interval at the least."""
    count = "count"
    """How many, on average; Student's interval."""
    quality = "quality"
    """Any other number: decibels, a distance, a loss; Student's interval."""


def is_share(value: float) -> bool:
    """Is it between 0 and 1, but for the rounding of sums?"""
    return -1e-9 <= value <= 1 + 1e-9


def wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial share; `count` may be an effective, fractional sample size."""
    square = quantile**2 / count
    centre = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    # exact at the ends, where rounding would leave 1e-17
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


def _by_group(
    parts: Sequence[float], groups: Sequence[Hashable], wholes: Sequence[float] | None
) -> tuple[dict[Hashable, float], dict[Hashable, float]]:
    """Sums of parts and of wholes by group, in the order of the groups' first items; items without a whole are none."""
    sums: dict[Hashable, float] = defaultdict(float)
    sizes: dict[Hashable, float] = defaultdict(int)
    for part, group, whole in zip(parts, groups, [1] * len(parts) if wholes is None else wholes, strict=True):
        if whole:
            sums[group] += part
            sizes[group] += whole
    return sums, sizes


def design_effect(parts: Sequence[float], groups: Sequence[Hashable], wholes: Sequence[float] | None = None) -> float:
    """How many times larger the variance of the share is than for independent items, at least 1.

    The variance of a ratio over G groups of size m with s right, G/(G-1) * sum (s - p m)^2 / n^2, over the one of
    independent items, p (1 - p) / (n - 1). Where nothing can be estimated (all right, all wrong, or a single group)
    the items of a group count as copies of one another: Kish's sum m^2 / sum m.
    """
    rights, sizes = _by_group(parts, groups, wholes)
    count, total = sum(sizes.values()), sum(rights.values())
    copies = sum(size**2 for size in sizes.values()) / count
    if len(sizes) == 1 or total in (0, count) or count <= 1:
        return max(1.0, copies)
    share = total / count
    spread = sum((rights[group] - share * size) ** 2 for group, size in sizes.items()) * len(sizes) / (len(sizes) - 1)
    return max(1.0, spread / count**2 / (share * (1 - share) / (count - 1)))


def share_interval(
    parts: Sequence[float],
    groups: Sequence[Hashable],
    confidence: float = 0.95,
    wholes: Sequence[float] | None = None,
) -> Interval:
    """A share with Wilson's interval at the effective sample size.

    Args:
        parts: of every item, 1 for a right answer, or its score from 0 to 1 (the interval is then wider than need be).
        groups: what the item hangs on (its theory, story, client); items of one group are not independent.
        confidence: two-sided.
        wholes: of what each part is one, such as pieces of an answer; 1 where left out.

    The effective size is n / design effect; with few groups Student's quantile replaces the normal one, since the
    design effect itself is estimated from them. With all groups of size one this is Wilson's plain interval.

    Raises:
        ValueError: no items, lengths differ, a confidence outside (0, 1), or a share outside [0, 1].
    """
    count = len(parts) if wholes is None else sum(wholes)
    if not count:
        raise ValueError("share_interval of no items: the split is empty")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")
    share = sum(parts) / count
    if not is_share(share):
        raise ValueError(f"{share:.4g} is no share of 1; a count or a quality has another interval (Kind)")
    share = min(max(share, 0.0), 1.0)
    kinds = len(_by_group(parts, groups, wholes)[1])
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    effect = design_effect(parts, groups, wholes)
    if 1 < kinds < count:
        from scipy.special import stdtrit

        quantile = float(stdtrit(kinds - 1, (1 + confidence) / 2))
    return Interval(share, round(count), *wilson(share, count / effect, quantile))


def mean_interval(
    parts: Sequence[float],
    groups: Sequence[Hashable],
    confidence: float = 0.95,
    wholes: Sequence[float] | None = None,
) -> Interval:
    """Mean of any numbers, or ratio of sums, with Student's interval over groups of items that hang together.

    The variance is that of a ratio over G groups, G/(G-1) * sum (s - mean m)^2 / n^2 with s the sum and m the size of a
    group. Of a single group nothing can be estimated: the interval is the range of the values.

    Raises:
        ValueError: no items, or lengths differ.
    """
    sums, sizes = _by_group(parts, groups, wholes)
    count, kinds = sum(sizes.values()), len(sizes)
    if not count:
        raise ValueError("mean_interval of no items: the split is empty")
    from scipy.special import stdtrit

    mean = sum(sums.values()) / count
    if kinds == 1:
        values = [part / whole for part, whole in zip(parts, wholes or [1] * len(parts), strict=True) if whole]
        return Interval(mean, round(count), min(values), max(values))
    spread = sum((sums[group] - mean * size) ** 2 for group, size in sizes.items()) * kinds / (kinds - 1)
    half = float(stdtrit(kinds - 1, (1 + confidence) / 2)) * spread**0.5 / count
    return Interval(mean, round(count), mean - half, mean + half)


def ratio_interval(
    kind: Kind, parts: Sequence[float], groups: Sequence[Hashable], wholes: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Sum of the parts over that of the wholes with the interval of its kind. A share of nothing is 0, between 0 and 1.

    Raises:
        ValueError: no items, or what is no share of anything.
    """
    if kind is not Kind.share:
        return mean_interval(parts, groups, confidence, wholes)
    if parts and not sum(wholes):
        return Interval(0.0, 0, 0.0, 1.0)
    return share_interval(parts, groups, confidence, wholes)
