"""What the parts found, as one page of Markdown without a place of this machine in it."""

import json
import platform
import re
import statistics
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.run import environment
from scripts.gpu.carrying import Outcome
from scripts.gpu.parts import MODEL, ROOT, Part

GIB = 2**30


def machine() -> list[str]:
    """Hardware, driver, versions: a bullet point each."""
    found = environment.describe()
    hardware, libraries = found["hardware"], found["libraries"]
    memory = (hardware["memory_bytes"] or 0) / GIB
    gpus = "; ".join(_gpus() or hardware["cuda"]) or "none"
    return [
        f"- GPU: {gpus}; torch's CUDA {hardware['cuda_version']}",
        f"- processor: {hardware['cpu']}, {hardware['cores']} cores, {memory:.0f} GiB",
        f"- Python {platform.python_version()}, "
        + ", ".join(f"{name} {libraries[name]}" for name in ("torch", "transformers", "peft") if name in libraries),
    ]


def _gpus() -> list[str]:
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(
            asked, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in shown.splitlines() if line.count(",") == 2]
    return [f"{name}, driver {driver}, {memory}" for name, driver, memory in rows]


def page(parts: Sequence[Part], state: Mapping[str, Outcome], output: Path, about: Sequence[str]) -> str:
    """The page; `about` describes the machine."""
    revisions = sorted({_revision(outcome) for outcome in state.values()})
    text = [
        "# On a GPU", "",
        f"`python -m scripts.gpu`, {datetime.now(UTC):%Y-%m-%d}.", "",
        *about,
        f"- revision: {', '.join(revisions) or 'none yet'}" + ("; **more than one**" if len(revisions) > 1 else ""), "",
        "| part | state | minutes | exit code |", "| --- | --- | ---: | ---: |",
    ]  # fmt: skip
    for part in parts:
        outcome = state.get(part.name)
        cells = (outcome.state, f"{outcome.seconds / 60:.1f}", str(outcome.code)) if outcome else ("not run", "", "")
        text.append(f"| {' | '.join((part.name, *cells))} |")
    text += ["", "`cut`: its time was up; a training goes on with the next call, what follows is of the steps it made."]
    text += ["", "## Tests", "", *_tests([part for part in parts if part.kind == "tests"], output)]
    text += ["", "## Benchmarks", "", *_benchmarks([part for part in parts if part.kind == "benchmark"], output)]
    text += ["", "## Trainings", "", *_trainings([part for part in parts if part.kind == "train"], output), ""]
    return _anonymous("\n".join(text), output)


def _revision(outcome: Outcome) -> str:
    return outcome.revision[:7] + (" with local changes" if outcome.dirty else "")


def _anonymous(text: str, output: Path) -> str:
    """Without folders of this machine."""
    places = {str(output.resolve()): "<output>", str(output): "<output>", str(ROOT): ".", str(Path.home()): "~"}
    for place in sorted((each for each in places if len(each) > 1), key=len, reverse=True):
        text = re.sub(re.escape(place) + r"(?![\w.-])", lambda _, word=places[place]: word, text)  # type: ignore[misc]
    return text


def _tests(parts: Sequence[Part], output: Path) -> Iterator[str]:
    yield "| file | passed | failed | skipped |"
    yield "| --- | ---: | ---: | ---: |"
    bad = []
    for part in parts:
        if not (file := output / f"{part.file}.xml").is_file():
            continue
        (suite,) = ElementTree.parse(file).getroot().iter("testsuite")
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        passed = count["tests"] - failed - count["skipped"]
        yield f"| {part.name}.py | {passed} | {failed} | {count['skipped']} |"
        for case in suite.iter("testcase"):
            for child in case:
                if child.tag in ("failure", "error"):
                    first = (child.get("message") or "").partition("\n")[0][:200]
                    bad.append(f"- `{case.get('name')}`: {first}")
    yield from ["", *bad] if bad else []


def _benchmarks(parts: Sequence[Part], output: Path) -> Iterator[str]:
    yield "Ratios are to `higher`, where a group has it; PERK's network has the shape of Qwen2.5-0.5B, random weights."
    for part in parts:
        if (file := output / f"{part.file}.md").is_file():
            text = file.read_text(encoding="utf-8")
            yield ""
            yield text[text.index("### ") :].strip().replace("### ", f"### {part.words[1]}: ", 1)


def _trainings(parts: Sequence[Part], output: Path) -> Iterator[str]:
    yield f"PERK's network is `{MODEL}`: the shape of Qwen2.5-0.5B, random weights, another tokenizer: its steps show"
    yield "cost, not learning."
    yield ""
    yield "| training | steps | outer loss | seconds a step | peak memory | dev accuracy |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for part in parts:
        paper = part.words[0].partition(".")[0]
        for file in sorted((output / "runs" / paper).rglob("metrics.jsonl")):
            records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            if steps := [record for record in records if record["split"] == "train"]:
                yield f"| {part.name} | {' | '.join(_cells(steps, records))} |"


def _cells(steps: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> list[str]:
    losses = [each["train/outer_loss"] for each in steps if each.get("train/outer_loss") is not None]
    seconds = [each["cost/seconds_per_step"] for each in steps]
    dev = [each["dev/accuracy"] for each in records if each.get("dev/accuracy") is not None]
    return [
        str(steps[-1]["step"]),
        f"{losses[0]:.3f} to {losses[-1]:.3f}" if losses else "not finite",
        f"{statistics.median(seconds):.3f}",
        f"{max(each['cost/peak_memory_bytes'] for each in steps) / GIB:.1f} GiB",
        f"{100 * dev[0]:.1f} to {100 * dev[-1]:.1f} %" if dev else "",
    ]
