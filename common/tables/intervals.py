"""Confidence intervals for shares of right answers when questions come in groups that hang together."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

from common.run.results import Interval


def wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial share; `count` may be an effective, fractional sample size."""
    square = quantile**2 / count
    centre = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    # exact at the ends, where rounding would leave 1e-17
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


def design_effect(correct: Sequence[float], groups: Sequence[Hashable]) -> float:
    """How many times larger the variance of the share is than for independent items, at least 1.

    The variance of a ratio over G groups of size m with s right, G/(G-1) * sum (s - p m)^2 / n^2, over the one of
    independent items, p (1 - p) / (n - 1). Where nothing can be estimated (all right, all wrong, or a single group)
    the items of a group count as copies of one another: Kish's sum m^2 / sum m.
    """
    rights: dict[Hashable, float] = defaultdict(float)
    sizes: dict[Hashable, int] = defaultdict(int)
    for right, group in zip(correct, groups, strict=True):
        rights[group] += right
        sizes[group] += 1
    count, total = len(correct), sum(rights.values())
    copies = sum(size**2 for size in sizes.values()) / count
    if len(sizes) == 1 or total in (0, count):
        return copies
    share = total / count
    spread = sum((rights[group] - share * size) ** 2 for group, size in sizes.items()) * len(sizes) / (len(sizes) - 1)
    return max(1.0, spread / count**2 / (share * (1 - share) / (count - 1)))


def accuracy_interval(correct: Sequence[float], groups: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Share of right answers with Wilson's interval at the effective sample size.

    Args:
        correct: one truth value per item, or its score from 0 to 1 (the interval is then wider than need be).
        groups: what the item hangs on (its theory, story, client); items of one group are not independent.
        confidence: two-sided.

    The effective size is n / design effect; with few groups Student's quantile replaces the normal one, since the
    design effect itself is estimated from them. With all groups of size one this is Wilson's plain interval.

    Raises:
        ValueError: no items, lengths differ, or a confidence outside (0, 1).
    """
    if not correct:
        raise ValueError("accuracy_interval of no items: the split is empty")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")
    count = len(correct)
    share = sum(correct) / count
    kinds = len(set(groups))
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    effect = design_effect(correct, groups)
    if 1 < kinds < count:
        from scipy.stats import t

        quantile = float(t.ppf((1 + confidence) / 2, kinds - 1))
    return Interval(share, count, *wilson(share, count / effect, quantile))


def mean_interval(values: Sequence[float], groups: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Mean of any numbers with Student's interval over groups of items that hang together.

    The variance is that of a ratio over G groups, G/(G-1) * sum (s - mean m)^2 / n^2 with s the sum and m the size of a
    group. Of a single group nothing can be estimated: the interval is the range of the values.

    Raises:
        ValueError: no items, or lengths differ.
    """
    if not values:
        raise ValueError("mean_interval of no items: the split is empty")
    from scipy.stats import t

    sums: dict[Hashable, float] = defaultdict(float)
    sizes: dict[Hashable, int] = defaultdict(int)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value
        sizes[group] += 1
    count, kinds = len(values), len(sizes)
    mean = sum(sums.values()) / count
    if kinds == 1:
        return Interval(mean, count, min(values), max(values))
    spread = sum((sums[group] - mean * size) ** 2 for group, size in sizes.items()) * kinds / (kinds - 1)
    half = float(t.ppf((1 + confidence) / 2, kinds - 1)) * spread**0.5 / count
    return Interval(mean, count, mean - half, mean + half)
