"""Everything here that needs a GPU, on this machine's: tests, benchmarks, two trainings, one page. No network.

    python -m scripts.gpu --minutes 25 --output gpu     what fits into 25 minutes; again, and it goes on
    python -m scripts.gpu --dry-run                     on any machine: the parts and what they are predicted to take
    python -m scripts.gpu --part train/reckoning        one part, also one that is done or has failed

A part takes at most nine minutes. What is done stands in <output>/state.json, what it said in <output>/*.txt, and the
page in <output>/gpu.md.
"""

import argparse
import math
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common.errors import UserError
from scripts.gpu.carrying import Runner, carry_on, left, read_state, run_part
from scripts.gpu.parts import Part, parts, write_model
from scripts.words import mistakes_told

PAGE = "gpu.md"


def main(words: Sequence[str] | None = None, run: Runner = run_part) -> None:
    """Run what is left, or list it."""
    with mistakes_told():
        signal.signal(signal.SIGTERM, _terminate)
        try:
            carry_out(_options(words), run)
        except KeyboardInterrupt as error:
            sys.stderr.write("interrupted; the same command goes on\n")
            raise SystemExit(130) from error


def carry_out(options: argparse.Namespace, run: Runner) -> None:
    """See `main`.

    Raises:
        UserError: no CUDA device, a part that is not there, a number of minutes that is none, or a damaged state.
    """
    there = parts()
    if not options.minutes > 0:
        raise UserError(f"--minutes {options.minutes:g}: use a number above 0")
    if unknown := sorted(set(options.part) - {part.name for part in there}):
        raise UserError(f"--part {unknown[0]}: choose from {', '.join(part.name for part in there)}")
    output = options.output.absolute()
    wanted = [part for part in there if part.name in options.part] or left(there, read_state(output))
    if options.dry_run:
        sys.stdout.write("\n".join(listing(wanted, options.minutes)) + "\n")
        return

    from common.run.environment import revision
    from scripts.gpu.page import machine, page

    _need_cuda()
    try:
        write_model(output)
    except OSError as error:
        raise UserError(f"--output {options.output}: {error.strerror}; give another folder") from error
    try:
        carry_on(wanted, output, options.minutes, revision(), run)
    finally:  # what is done is on the page, whatever stopped the rest
        state = read_state(output)
        (output / PAGE).write_text(page(there, state, output, machine()), encoding="utf-8")
    rest = left(there, state)
    more = f"; {len(rest)} parts are left: the same command goes on" if rest else ""
    sys.stdout.write(f"{options.output / PAGE}: {len(state)} of {len(there)} parts{more}\n")
    if failed := [name for name, outcome in state.items() if outcome.state == "failed"]:
        sys.stderr.write(f"failed: {', '.join(failed)}; what they said stands in {options.output}\n")
        raise SystemExit(1)


def listing(wanted: Sequence[Part], minutes: float) -> list[str]:
    """Every part with its predicted cost, and what a machine without CUDA makes of it."""
    lines = []
    for part in wanted:
        lines.append(f"{part.name}: {part.minutes:.1f} min; without CUDA {part.without}")
        lines.append(f"    python -m {shlex.join(part.words)}")
    total = sum(part.minutes for part in wanted)
    calls = max(1, math.ceil(total / minutes))
    summary = f"{len(wanted)} parts, about {total:.0f} min as predicted, not measured: {calls} calls of {minutes:g} min"
    return [*lines, summary]


def _need_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"torch {torch.__version__} sees no CUDA device: run this where there is one; --dry-run lists the parts "
            "and their predicted cost on any machine"
        )


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python -m scripts.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--minutes", type=float, default=25.0, help="of this call (default 25)")
    made.add_argument(
        "--output", type=Path, default=Path("gpu"), help="folder for state, logs, runs and page (default gpu)"
    )
    made.add_argument("--part", action="append", default=[], help="this part alone; may come again")
    made.add_argument("--dry-run", action="store_true", help="list the parts, run nothing")
    return made.parse_args(words)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
