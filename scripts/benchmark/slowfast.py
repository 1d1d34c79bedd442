"""What fast learning costs, as ratios from one run.

    python -m scripts.benchmark slowfast                      one core, a few minutes
    python -m scripts.benchmark slowfast fast_1 stack         two of the groups
    python -m scripts.benchmark slowfast --check              exit status 1 where a wanted ratio is missed
    python -m scripts.benchmark slowfast --quick              the same with fewer episodes and repeats

The network is that of `model=factored_tiny` in the small rooms, with random weights: what is timed does not depend on
them. `backbone` runs nothing: it counts what the paper's network would hold. How things are measured:
scripts/benchmark/running.py.
"""

from collections.abc import Sequence

from scripts.benchmark.running import carry_out, chosen, parser
from scripts.benchmark.slowfast_groups import groups

COMMAND = "scripts.benchmark slowfast"


def main(words: Sequence[str]) -> None:
    """Run, print, write; exit status 1 if a case failed or is not exact, or with --check missed what was wanted."""
    given = list(words)
    made = parser(COMMAND, __doc__, [group.name for group in groups()])
    made.add_argument("--quick", action="store_true", help="fewer episodes and repeats; targets do not hold there")
    options = made.parse_intermixed_args(given)
    carry_out(COMMAND, given, options, chosen(made, options, groups(quick=options.quick)))
