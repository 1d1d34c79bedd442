"""What a sweep on one machine says of itself: what its runs are called, and how long all of it will take."""

import heapq
import statistics
from collections.abc import Sequence


def names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """A short name for each list of overrides: its place, and the values in which it differs from others.

    `method=plain seed=1` beside `method=ours seed=2` is `[1/2] plain seed 1`: a number is shown with its key.
    """
    typed = [dict(_split(word) for word in job) for job in jobs]
    keys = list(dict.fromkeys(key for job in typed for key in job))
    varied = [key for key in keys if len({job.get(key) for job in typed}) > 1]
    found = []
    for place, job in enumerate(typed, start=1):
        values = [_shown(key, job[key]) for key in varied if key in job]
        found.append(" ".join([f"[{place}/{len(jobs)}]", *values]))
    return found


def _split(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value


def _shown(key: str, value: str) -> str:
    return value if "." not in key and value.isidentifier() else f"{key} {value}"


def seconds_left(running: Sequence[float | None], waiting: int, whole: Sequence[float], processes: int) -> float | None:
    """Seconds until the last of a sweep's runs ends, None while nothing is known.

    Args:
        running: seconds left of each run that has begun, None where its progress is not known yet.
        waiting: runs that have not begun; each is taken to be of average length.
        whole: seconds from begin to end of the runs of which that is known or foreseen.
        processes: how many run at once.
    """
    if not running and not waiting:
        return 0.0
    if not whole:
        return None
    average = statistics.fmean(whole)
    ends = [average if left is None else left for left in running]
    ends += [0.0] * max(0, processes - len(ends))
    heapq.heapify(ends)
    for _ in range(waiting):
        heapq.heapreplace(ends, ends[0] + average)
    return max(ends)
