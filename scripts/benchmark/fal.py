"""What a round of federated adversarial training costs, as ratios from one run.

    python -m scripts.benchmark fal                      one core, over half an hour
    python -m scripts.benchmark fal cnn_9k mlp_64        two of the models
    python -m scripts.benchmark fal --check              exit status 1 where a wanted factor is missed
    python -m scripts.benchmark fal --quick              two models, a fifth of the clients, nothing compiled

Every way to run a round is timed in turn with the lean loop in one process, in CPU seconds: other processes on the
machine take none of them, though they slow both. How else things are measured: scripts/benchmark/running.py.
"""

from collections.abc import Sequence

from scripts.benchmark.fal_groups import groups, quick_groups
from scripts.benchmark.running import carry_out, chosen, parser

COMMAND = "scripts.benchmark fal"


def main(words: Sequence[str]) -> None:
    """Run, print, write; exit status 1 if a case failed, or with --check missed what was wanted."""
    given = list(words)
    made = parser(COMMAND, __doc__, [group.name for group in groups()])
    made.add_argument("--quick", action="store_true", help="two models, fewer clients; targets do not hold there")
    options = made.parse_intermixed_args(given)
    carry_out(COMMAND, given, options, chosen(made, options, quick_groups() if options.quick else groups()))
