"""What PERK costs: training, reading and answering, as ratios from one run (the shapes of the paper's Figures 6, 8).

    python -m scripts.benchmark perk                            one core, minutes: a small model, fp32
    python -m scripts.benchmark perk --quick                    the ends of every series
    python -m scripts.benchmark perk --size 0.5b --device cuda  the shape of Qwen2.5-0.5B, bf16, random weights

training   memory and time of an outer step against context length and T, beside a reference on `higher`
exact      the same context with less memory: recomputed steps, one segment in a graph
reading    memory and time of writing a context, by length and accumulation
answering  what PERK and FT-ICR with a cached context do once and for every question, and from how many questions on
           PERK takes less time

How things are measured: scripts/benchmark/running.py. Needs the extra packages of `pip install -e '.[benchmark]'`.
"""

from collections.abc import Sequence

from scripts.benchmark.perk_groups import SIZES, groups, quick_groups
from scripts.benchmark.running import carry_out, chosen, parser

COMMAND = "scripts.benchmark perk"


def main(words: Sequence[str]) -> None:
    """Run, print, write; exit status 1 if a case failed, or has another gradient or memory than it must."""
    given = list(words)
    made = parser(COMMAND, __doc__, [group.name for group in groups("cpu")])
    made.add_argument("--quick", action="store_true", help="the ends of every series, each case once")
    made.add_argument("--size", choices=list(SIZES), default="cpu", help="of the model and its contexts (default cpu)")
    options = made.parse_intermixed_args(given)
    there = (quick_groups if options.quick else groups)(options.size)
    carry_out(COMMAND, given, options, chosen(made, options, there))
