"""What is to be run on a GPU: parts of at most nine minutes, each a command of its own."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"\bmark\.cuda\b")
CASE_SECONDS = 12
"""Guess for a benchmark's case: its process, first call and repeats."""
TEST_MINUTES = 1.0
"""Guess for a file of tests."""
TRAINING_MINUTES = 5.0
"""A training takes what is left, but no part is planned with less."""
FIRST = ("benchmark/engine/sgd", "benchmark/engine/lora", "benchmark/engine/small")
"""Groups of the engine that are run before the trainings, PERK's beside them."""
MODEL = "qwen2-0.5b"
"""Folder of the shape of Qwen2.5-0.5B; without weights, so nothing is fetched."""


@dataclass(frozen=True)
class Part:
    """One command; what it is for shows in its name, as `tests/...` or `train/reckoning`."""

    name: str
    minutes: float
    """Predicted; none of it has been measured."""
    words: tuple[str, ...]
    """Of `python -m`; `{output}` stands for the output folder."""
    without: str
    """What becomes of it on a machine without CUDA."""

    @property
    def kind(self) -> str:
        """tests, benchmark or train."""
        return self.name.partition("/")[0]

    @property
    def file(self) -> str:
        """Name of its files in the output folder."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    def command(self, output: Path | str) -> list[str]:
        """The words of a process."""
        return [sys.executable, "-m", *(word.replace("{output}", str(output)) for word in self.words)]


def parts() -> list[Part]:
    """All of them, in the order in which they are run: what is right, what it costs, what it learns."""
    first: list[Part] = []
    others: list[Part] = []
    for part in _benchmarks():
        (first if part.name in FIRST or "/perk/" in part.name else others).append(part)
    return [*_tests(), *first, *_trainings(), *others]


def _tests() -> Iterator[Part]:
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        if MARK.search(file.read_text(encoding="utf-8")):
            place = file.relative_to(ROOT).as_posix()
            name = place.removesuffix(".py")
            report = "--junitxml={output}/" + re.sub(r"[^\w.-]+", "-", name) + ".xml"
            words = ("pytest", "-m", "cuda", "-q", "-rfE", "-p", "no:cacheprovider", report, place)
            yield Part(name, TEST_MINUTES, words, "all of it is skipped")


def _benchmarks() -> Iterator[Part]:
    from scripts.benchmark import engine_groups, perk_groups

    for group in engine_groups.groups():
        if any(getattr(row.case, "engine", "") == "higher" for row in group.rows):
            yield _benchmark("engine", group.name, len(group.rows))
    for each in perk_groups.quick_groups("0.5b"):
        yield _benchmark("perk", each.name, len(each.rows), "--quick", "--size", "0.5b")


def _benchmark(module: str, group: str, cases: int, *more: str) -> Part:
    name = f"benchmark/{module}/{group}"
    written = "{output}/" + name.replace("/", "-") + ".md"
    words = ("scripts.benchmark", module, group, *more, "--device", "cuda", "--markdown", written)
    return Part(name, round((cases + 1) * CASE_SECONDS / 60, 1), words, "every case fails: --device cuda")


def _trainings() -> Iterator[Part]:
    shared = ("runtime=gpu", "loop.root={output}/runs", "loop.log_every=1", "loop.save_seconds=60")
    reckoning = ("reckoning.train", "+experiment=proofwriter_repaired", "scale=gpu", *shared)
    yield Part("train/reckoning", TRAINING_MINUTES, reckoning, "stops at once: runtime=gpu")
    perk = (
        "perk.train", "+experiment=babilong_qa1", "data=babilong_cpu", "data.shrink=1", "data.length=8192",
        "data.segment=256", "data.count={train:400,dev:4,test:4}", f"model.name={{output}}/{MODEL}",
        "model.tokenizer=tiny_stories", "model.pretrained=false", "outer.batch_problems=1", "outer.accumulation=1",
        "evaluation.max_new_tokens=8", *shared,
    )  # fmt: skip
    yield Part("train/perk-0.5b", TRAINING_MINUTES, perk, "stops at once: runtime=gpu")


def write_model(output: Path) -> None:
    """The configuration of a network with the numbers of Qwen2.5-0.5B, in `output`/`MODEL`."""
    from scripts.benchmark.perk_groups import SIZES

    size = SIZES["0.5b"]
    settings = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": size.layers,
        "hidden_size": size.width, "num_attention_heads": size.heads, "num_key_value_heads": size.key_heads,
        "intermediate_size": size.hidden, "vocab_size": size.vocabulary, "max_position_embeddings": 32768,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }  # fmt: skip
    (output / MODEL).mkdir(parents=True, exist_ok=True)
    (output / MODEL / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
