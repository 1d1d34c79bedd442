"""Pre-train an embedded model on generated English, on one core; shows the time left.

    python -m scripts.embedded pretrain                   writes common/language/tiny/model.safetensors, from
                                                          scripts/embedded/tiny_english.py
    python -m scripts.embedded pretrain --model stories   the same for tiny_stories, from stories_english.py
    python -m scripts.embedded pretrain --folder <a copy of common/language/tiny> --steps 300

A killed run continues with the same command, from `runs/pretrain_tiny/<settings>`, and ends in the same bits. How the
weights in the folder were made stands beside them in pretraining.json: recipe, seconds, hardware, loss on text that was
not trained on.
"""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.engine.outer import share_of_peak
from common.language.sources import WEIGHTS, digest_of
from common.run import checkpoint
from common.run.environment import describe
from common.run.files import write_atomic
from common.run.progress import Progress
from common.run.seeding import seed_everything, set_deterministic
from scripts.embedded import stories_english, tiny_english

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
RECORD = "pretraining.json"
PASSAGES = 64
"""More passages than any row holds: row r has passages r * PASSAGES onwards."""
SHARPNESS, WRITES, MATCHES, SAYS = 6.0, 0.12, 2.5, 0.12
HELD_OUT = 10**9
"""Rows from here on are never trained on."""


@dataclass(frozen=True)
class Recipe:
    """What decides the weights."""

    steps: int = 3000
    rows: int = 16
    """Rows a step."""
    length: int = 160
    """Tokens a row."""
    lr: float = 3e-3
    """AdamW, for embeddings, biases and gains."""
    matrix_lr: float = 0.02
    """Muon, for the matrices inside the layers."""
    warmup: float = 0.01
    drill: int = 300
    """Rows of random words said twice: all at first, falling over so many steps to an eighth."""
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """What a model is trained on and where it lies. Passages and drills are pure functions of (seed, number)."""

    folder: Path
    recipe: Recipe
    passage: Callable[[int, int], str]
    drill: Callable[[int, int], str]
    kinds: Mapping[str, Callable[[int, int], str]] = field(default_factory=dict)
    """Kinds of passages whose loss is measured apart."""


SOURCES = {
    "tiny": Source(Path("common/language/tiny"), Recipe(), tiny_english.passage, tiny_english.drill),
    "stories": Source(
        Path("common/language/tiny_stories"),
        Recipe(steps=600, rows=10, length=256),
        stories_english.passage,
        stories_english.drill,
        stories_english.KINDS,
    ),
}


class Text:
    """Rows of running text: passages one after the other, an end-of-text token before each, cut at the row's end."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, source: Source = SOURCES["tiny"]) -> None:
        """Row r is a pure function of the recipe's seed and r."""
        self.tokenizer, self.recipe, self.source = tokenizer, recipe, source
        self.eos = int(tokenizer.eos_token_id)

    def batch(self, step: int) -> Tensor:
        """Token ids of a training step, counted from 0: int64 [rows, length + 1]; drills first."""
        count = self.recipe.rows
        drills = round(count * max(1 / 8, 1 - step / max(1, self.recipe.drill)))
        first = step * count
        return torch.cat([self.rows(first, drills, self.source.drill), self.rows(first + drills, count - drills)])

    def rows(self, first: int, count: int, write: Callable[[int, int], str] | None = None) -> Tensor:
        """Token ids of rows `first` onwards, int64 [count, length + 1]."""
        found = torch.empty(count, self.recipe.length + 1, dtype=torch.long)
        for number in range(count):
            found[number] = torch.tensor(self._row(first + number, write or self.source.passage))
        return found

    def _row(self, number: int, write: Callable[[int, int], str]) -> list[int]:
        ids: list[int] = []
        for turn in range(PASSAGES):
            if len(ids) > self.recipe.length:
                break
            text = write(self.recipe.seed, number * PASSAGES + turn)
            ids += [self.eos, *self.tokenizer.encode(text, add_special_tokens=False)]
        return ids[: self.recipe.length + 1]


def next_token_loss(network: nn.Module, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of every token after a row's first, in nats; []."""
    scores = network(input_ids=rows[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def start_with_copying(network: Any) -> None:
    """Random weights of which three heads already do what a copying network does; all of it is trained from there.

    Heads 0 and 1 of layer 0 look one and two tokens back, by their biases, and write what they see into subspaces of
    their own. Head 0 of layer 1 looks for the token that came after an earlier copy of the present one and of the one
    before it, and says that token. All other blocks start by adding nothing. Without this, 5 million tokens were not
    enough for any copying (docs/log.md).
    """
    settings = network.config
    width, heads = settings.hidden_size, settings.num_attention_heads
    size = width // heads
    turning = int(size * settings.rope_parameters["partial_rotary_factor"])
    for layer in network.gpt_neox.layers:
        layer.attention.dense.weight.zero_()
        layer.mlp.dense_4h_to_h.weight.zero_()
    look, match = (layer.attention for layer in network.gpt_neox.layers[:2])
    seen, *written, said = torch.linalg.qr(torch.randn(width, width))[0].split(size)[:4]

    speeds = settings.rope_parameters["rope_theta"] ** (-torch.arange(0, turning, 2) / turning)
    strength = SHARPNESS * (4 / turning) ** 0.5
    for head in range(2):
        rows = look.query_key_value.weight[3 * head * size : 3 * (head + 1) * size]
        bias = look.query_key_value.bias[3 * head * size : 3 * (head + 1) * size]
        rows[: 2 * size] *= 0.1
        bias[: turning // 2] = strength
        bias[size : size + turning // 2] = strength * (speeds * (head + 1)).cos()  # turned ahead: the best match is a
        bias[size + turning // 2 : size + turning] = strength * (speeds * (head + 1)).sin()  # token or two before
        rows[2 * size :] = seen
        look.dense.weight[:, head * size : (head + 1) * size] = WRITES * written[head].T

    compare = torch.zeros(size, size)
    compare[turning:] = MATCHES * torch.randn(size - turning, size) / size**0.5
    match.query_key_value.weight[:size] = compare @ (seen / WRITES / 8 + written[0])
    match.query_key_value.weight[size : 2 * size] = compare @ (written[0] + written[1])
    match.query_key_value.weight[2 * size : 3 * size] = said
    match.dense.weight[:, :size] = SAYS * said.T


def optimizers(network: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """Muon for matrices inside the layers, AdamW for the rest."""
    inside = {name: weight for name, weight in network.named_parameters() if weight.dim() == 2 and "embed" not in name}
    rest = [weight for name, weight in network.named_parameters() if name not in inside]
    return {
        "matrices": torch.optim.Muon(inside.values(), lr=recipe.matrix_lr, weight_decay=0.01, momentum=0.95),
        "rest": torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
    }


@torch.no_grad()
def held_out_loss(
    network: nn.Module, text: Text, rows: int = 64, write: Callable[[int, int], str] | None = None
) -> float:
    """Mean next-token loss, in nats, on text that is never trained on."""
    training = network.training
    loss = next_token_loss(network.eval(), text.rows(HELD_OUT, rows, write)).item()
    network.train(training)
    return loss


def pretrain(
    recipe: Recipe, folder: Path, work: Path, save_seconds: float = 60.0, source: Source = SOURCES["tiny"]
) -> dict[str, Any]:
    """Train from random weights, write them into `folder`, and return what is known of them.

    Args:
        recipe: what decides the weights.
        folder: holds config.json and the tokenizer; gets the weights and a record of how they were made.
        work: checkpoints, from which a killed run continues.
        save_seconds: seconds between checkpoints.
        source: the text.
    """
    from safetensors.torch import save as serialise
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    set_deterministic(True)
    torch.set_num_threads(1)
    seed_everything(recipe.seed)
    local = {"local_files_only": True, "trust_remote_code": False}
    text = Text(AutoTokenizer.from_pretrained(folder, **local), recipe, source)
    settings = AutoConfig.from_pretrained(folder, **local)
    network = AutoModelForCausalLM.from_config(settings, trust_remote_code=False).train()
    start_with_copying(network)
    tools = optimizers(network, recipe)
    peaks = {name: tool.param_groups[0]["lr"] for name, tool in tools.items()}
    step, seconds = 0, 0.0
    if (found := checkpoint.latest(work)) is not None:
        network.load_state_dict(found.objects["network"])
        for name, tool in tools.items():
            tool.load_state_dict(found.objects[name])
        step, seconds = found.step, found.run["seconds"]
        logger.info("continuing after step %d", step)
    began = saved = time.monotonic()
    with Progress(step, recipe.steps) as progress:
        while step < recipe.steps:
            share = share_of_peak(step, round(recipe.warmup * recipe.steps), recipe.steps)
            for name, tool in tools.items():
                tool.param_groups[0]["lr"] = peaks[name] * share
            loss = next_token_loss(network, text.batch(step))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for tool in tools.values():
                tool.step()
                tool.zero_grad()
            step += 1
            progress.note({"loss": loss.item()})
            progress.update(step)
            if time.monotonic() - saved >= save_seconds or step == recipe.steps:
                saved = time.monotonic()
                spent = seconds + saved - began
                states = {name: tool.state_dict() for name, tool in tools.items()}
                checkpoint.save(work, step, {"network": network.state_dict(), **states}, {"seconds": spent})
    write_atomic(folder / WEIGHTS, serialise({name: weight.data for name, weight in network.named_parameters()}))
    known = describe()
    record = {
        "recipe": asdict(recipe),
        "tokens": recipe.steps * recipe.rows * recipe.length,
        "seconds": round(seconds + time.monotonic() - began),
        "loss": round(held_out_loss(network, text), 4),
        "digest": digest_of(folder / WEIGHTS),
        "cpu": known["hardware"]["cpu"],
        "torch": known["libraries"]["torch"],
    }
    losses = {kind: round(held_out_loss(network, text, 16, write), 4) for kind, write in source.kinds.items()}
    if losses:
        record["losses"] = losses
    write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return record


def main(words: Sequence[str]) -> None:
    """Pre-train as the command line says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.embedded pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=SOURCES, default="tiny")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrain_tiny"))
    given = {key: value for key, value in vars(parser.parse_args(words)).items() if value is not None}
    model, runs = given.pop("model"), given.pop("runs")
    source = SOURCES[model]
    folder = given.pop("folder", source.folder)
    if model != "tiny":
        runs = runs / model
    recipe = replace(source.recipe, **given)
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()[:12]
    if not (folder / "config.json").is_file():
        raise SystemExit(
            f"error: --folder {folder}: no config.json; copy {source.folder} there, or run scripts.embedded.shapes"
        )
    record = pretrain(recipe, folder, runs / digest, source=source)
    logger.info("%s: loss %.3f after %d s", folder / WEIGHTS, record["loss"], record["seconds"])
    logger.info("conf/language/model/%s.yaml: set digest: %s", source.folder.name, record["digest"])
