"""Pre-train `reckoning/tiny` on generated English (`scripts/tiny_english.py`), on one core; progress with the time left.

    python -m scripts.pretrain_tiny                        writes reckoning/tiny/model.safetensors
    python -m scripts.pretrain_tiny --steps 300 --folder elsewhere

A killed run continues with the same command, from `runs/pretrain_tiny/<settings>`, and ends in the same bits.
"""

import argparse
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common import checkpoint
from common.environment import describe
from common.files import write_atomic
from common.outer import share_of_peak
from common.progress import Progress
from common.seeding import seed_everything, set_deterministic
from scripts.tiny_english import passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
TINY = Path("reckoning/tiny")
WEIGHTS = "model.safetensors"
RECORD = "pretraining.json"
PASSAGES = 64
"""More passages than any row holds: row r has passages r * PASSAGES onwards."""
HELD_OUT = 10**9
"""Rows from here on are never trained on."""


@dataclass(frozen=True)
class Recipe:
    """What decides the weights."""

    steps: int = 5000
    rows: int = 32
    """Rows a step."""
    length: int = 192
    """Tokens a row."""
    lr: float = 3e-3
    """AdamW, for embeddings, biases and gains."""
    matrix_lr: float = 0.02
    """Muon, for the matrices inside the layers."""
    warmup: float = 0.02
    seed: int = 0


class Text:
    """Rows of running text: passages one after the other, an end-of-text token before each, cut at the row's end."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> None:
        """Row r is a pure function of the recipe's seed and r."""
        self.tokenizer, self.recipe = tokenizer, recipe
        self.eos = int(tokenizer.eos_token_id)

    def rows(self, first: int, count: int) -> Tensor:
        """Token ids, int64 [count, length + 1]."""
        return torch.tensor([self._row(number) for number in range(first, first + count)])

    def _row(self, number: int) -> list[int]:
        ids: list[int] = []
        for turn in range(PASSAGES):
            if len(ids) > self.recipe.length:
                break
            text = passage(self.recipe.seed, number * PASSAGES + turn)
            ids += [self.eos, *self.tokenizer.encode(text, add_special_tokens=False)]
        return ids[: self.recipe.length + 1]


def next_token_loss(network: nn.Module, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of every token after a row's first, in nats; []."""
    scores = network(input_ids=rows[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten())


def optimizers(network: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """Muon for matrices inside the layers, AdamW for the rest."""
    inside = {
        name: weight for name, weight in network.named_parameters() if weight.dim() == 2 and "embed" not in name
    }
    rest = [weight for name, weight in network.named_parameters() if name not in inside]
    return {
        "matrices": torch.optim.Muon(inside.values(), lr=recipe.matrix_lr, weight_decay=0.01, momentum=0.95),
        "rest": torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
    }


def pretrain(recipe: Recipe, folder: Path, work: Path, save_seconds: float = 60.0) -> dict[str, Any]:
    """Train from random weights, write them into `folder`, and return what is known of them.

    Args:
        recipe: what decides the weights.
        folder: holds config.json and the tokenizer; gets the weights and a record of how they were made.
        work: checkpoints, from which a killed run continues.
        save_seconds: seconds between checkpoints.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    set_deterministic(True)
    torch.set_num_threads(1)
    seed_everything(recipe.seed)
    text = Text(AutoTokenizer.from_pretrained(folder, local_files_only=True), recipe)
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True)).train()
    tools = optimizers(network, recipe)
    peaks = {name: tool.param_groups[0]["lr"] for name, tool in tools.items()}
    step, seconds, losses = 0, 0.0, []
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
            loss = next_token_loss(network, text.rows(step * recipe.rows, recipe.rows))
            loss.backward()  # type: ignore[no-untyped-call]
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
    seconds += time.monotonic() - began
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--folder", type=Path, default=TINY)
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrain_tiny"))
    given = vars(parser.parse_args())
    folder, runs = given.pop("folder"), given.pop("runs")
    recipe = Recipe(**given)
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()[:12]
    pretrain(recipe, folder, runs / digest)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
