"""Runs that a page is made of, and what stands on it."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from common.run import results
from common.run.items import Item
from common.run.results import Interval
from common.tables.summary import summarise
from reckoning.config import TrainConfig

PUBLISHED = """
steps: turns
methods: {ft_icr: {role: baseline}, shortcuts: {role: rule}}
rules: {accuracy_majority: {role: chance, title: Majority label}, accuracy_chance: {role: chance, title: Chance}}
comparison:
  items: questions
  columns: {accuracy: {metric: accuracy}}
tables:
  levels:
    title: Accuracy by level
    where: Figure 5
    axis: distractors
    overrides: [+experiment=proofwriter_repaired]
    columns:
      "0": [data.distractors=0]
      "2": [data.distractors=2]
    rows:
      Old way: {overrides: [method=ft_icr], source: seen, values: {"0": 90.5, "2": 70.1}}
      New way: {overrides: [method=reckoning], against: Old way, source: recalled, values: {"0": 95.5, "2": null}}
      Best shortcut rule: {overrides: [method=shortcuts], metric: accuracy_*, once: true}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance, role: chance, once: true}
  main:
    title: Accuracy <&> more
    overrides: [+experiment=proofwriter_repaired]
    columns:
      Repaired: [data.distractors=0]
    rows:
      Old way: {overrides: [method=ft_icr]}
      Single-task: {overrides: [method=reckoning_st]}
      New way: {overrides: [method=reckoning], against: Old way}
  empty:
    title: Not run yet
    where: Table 9
    overrides: [+experiment=proofwriter]
    columns:
      all: [data.distractors=all]
    rows:
      New way: {overrides: [method=reckoning], source: seen, values: {all: 12.3}}
not_reached:
  Table 10: closed models
"""
QUESTIONS = 60
GOLD = ("true", "false", "unknown")
WORDS = dict(zip(GOLD, ("yes", "no", "none"), strict=True))
RIGHT = {("ft_icr", "0"): 41, ("reckoning", "0"): 57, ("ft_icr", "2"): 57, ("reckoning", "2"): 30}
CORES = {
    "cpu": "A processor",
    "cores": 2,
    "memory_bytes": 16_000_000_000,
    "cuda": ["A card"],
    "device": "cpu",
    "host": "secret-host",
}
COMMAND = "python -m reckoning.cost model=tiny"


def write(root: Path, settings: dict[str, Any], items: list[Item], test: dict[str, Interval]) -> Path:
    """A finished run folder."""
    folder = root / "reckoning" / settings["experiment"] / results.config_hash(settings, TrainConfig)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    started = {"command": COMMAND, "started": "2026-01-02T03:04:05+00:00"}
    (folder / "environment.json").write_text(json.dumps(started))
    method = settings.get("method", {}).get("name", "run_time")
    identity = results.RunIdentity("reckoning", settings["experiment"], method, "cpu", settings["seed"])
    seed = settings["seed"]
    written = results.Results(
        **vars(identity), config_hash=folder.name, revision="0123456789abcdef", dirty=seed == 1,
        hardware=CORES, wall_seconds=50.0 + seed, peak_memory_bytes=500_000_000, test=test,
    )  # fmt: skip
    results.write(folder, written, [item.to_json() for item in items])
    return folder


def write_method(root: Path, settings: dict[str, Any], right: int) -> None:
    """A trained run with a learning curve and, if it learns rates, their record."""
    items = [
        Item(f"q{i}", f"t{i // 3}", {"accuracy": (int(i < right), 1)}, {"answer": WORDS[GOLD[i % 3]]})
        for i in range(QUESTIONS)
    ]
    folder = write(root, settings, items, summarise(items, 0.95, by={}))
    records = [
        {"step": step, "dev/accuracy": 0.3 + step / 1000 + settings["seed"] / 100} for step in range(0, 401, 100)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if settings["method"]["name"] == "reckoning":
        values = [[0.1, 0.2 + settings["seed"] / 10], [0.1, 0.1]]
        names = ["net.h.0.weight", "net.h.1.weight"]
        record = {"schema": 1, "names": names, "layers": [name[:-7] for name in names], "selected": 400}
        record["records"] = [{"step": 0, "values": [[0.1, 0.1]] * 2}, {"step": 400, "values": values}]
        (folder / "rates.json").write_text(json.dumps(record))


def write_rules(root: Path, settings: dict[str, Any]) -> None:
    """A run of the shortcut rules."""
    rules = {"majority": 20, "polarity": 24, "bag_of_words": 31}
    items = [
        Item(
            f"q{i}", f"t{i // 3}", {f"accuracy_{rule}": (int(i < right), 1) for rule, right in rules.items()},
            {"answer": WORDS[GOLD[i % 3]]},
        )
        for i in range(QUESTIONS)
    ]  # fmt: skip
    chance = {"accuracy_chance": Interval(1 / 3, QUESTIONS, 1 / 3, 1 / 3)}
    write(root, settings, items, chance | summarise(items, 0.95, by={}))


def write_cost(root: Path) -> Path:
    """A run of the run-time study: one reading costs much, a question little."""
    settings = {"experiment": "run_time", "scale": "cpu", "seed": 0, "tokens": 64, "model": {"name": "tiny"}}
    folder = write(root, settings | {"inner": {"steps": 2}, "runtime": {"threads": 1}}, [], {})
    records: list[dict[str, Any]] = []
    for way, (read, question) in {"ft_icr": (0.0, 0.1), "reckoning": (1.0, 0.01)}.items():
        for count in (1, 4, 16):
            seconds = around(read + question * count)
            point = {"kind": "point", "way": way, "questions": count, "seconds": seconds, "seconds_reading": read}
            records.append(point | {"bytes": 1_000_000 * count})
        line = {"seconds_read": around(read), "seconds_question": around(question)}
        records.append({"kind": "line", "way": way} | line)
    never = dict.fromkeys(("value", "low", "high"), "never")
    records.append({"kind": "break_even", "way": "reckoning", "over": "ft_icr", "questions": around(12)})
    records.append({"kind": "break_even", "way": "ft_icr", "over": "reckoning", "questions": never})
    (folder / "cost.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def around(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1}


@dataclass
class Found:
    """What stands on a page."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tables: dict[str, list[list[list[str]]]] = field(default_factory=dict)
    """Anchor of the article -> its tables as rows of fields."""
    commands: list[str] = field(default_factory=list)
    charts: dict[str, int] = field(default_factory=dict)
    """Anchor of the article -> its drawings."""


class Reader(HTMLParser):
    """Collects what the tests look at."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Found()
        self._article = ""
        self._field: list[str] | None = None
        self._command: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        found = self.found
        found.ids += [given["id"]] if "id" in given else []
        found.links += [given[name] for name in ("href", "src") if name in given]
        if tag == "article":
            self._article = given.get("id", "")
        if tag == "table":
            found.tables.setdefault(self._article, []).append([])
        if tag == "tr":
            found.tables[self._article][-1].append([])
        if tag in ("td", "th"):
            self._field = []
        if tag == "code":
            self._command = []
        if tag == "svg" and given.get("class") == "chart":
            found.charts[self._article] = found.charts.get(self._article, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._field is not None:
            self.found.tables[self._article][-1][-1].append(" ".join("".join(self._field).split()))
            self._field = None
        if tag == "code" and self._command is not None:
            self.found.commands.append("".join(self._command))
            self._command = None

    def handle_data(self, data: str) -> None:
        for text in (self._field, self._command):
            if text is not None:
                text.append(data)
