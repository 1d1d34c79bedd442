"""What an exact outer gradient costs: this engine against `higher`, plain torch and TorchOpt, as ratios from one run.

    python -m scripts.benchmark engine --quick                   a few minutes on two cores
    python -m scripts.benchmark engine sgd lora                  two groups at full size
    python -m scripts.benchmark engine --markdown table.md       all of them, and the tables to a file

How things are measured: scripts/benchmark/running.py. Needs the extra packages of `pip install -e '.[benchmark]'`.
"""

from collections.abc import Sequence

from scripts.benchmark.engine_groups import groups, quick_groups
from scripts.benchmark.running import carry_out, chosen, parser

COMMAND = "scripts.benchmark engine"


def main(words: Sequence[str]) -> None:
    """Run, print, write; exit status 1 if a case failed or is not exact."""
    given = list(words)
    made = parser(COMMAND, __doc__, [group.name for group in groups()])
    made.add_argument("--quick", action="store_true", help="smaller sizes, nothing compiled; targets do not hold there")
    options = made.parse_intermixed_args(given)
    carry_out(COMMAND, given, options, chosen(made, options, quick_groups() if options.quick else groups()))
