"""`model=gpt2` through the real loading path: a small GPT-2 with the real tokenizer, trained, saved, reloaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.engine.weights import select
from common.language.config import ModelConfig
from common.language.model import load
from common.language.objective import logits
from reckoning.train import main
from tests.reckoning.miniature import make_network
from tests.runs import run_here

SENTENCE = "Based on fact_0 fact_1, can we conclude Anne is not kind?yes"


@pytest.fixture(scope="module")
def weights(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have it: config.json, model.safetensors, vocab.json, merges.txt."""
    folder = tmp_path_factory.mktemp("gpt2")
    make_network(50257, width=32, window=128, dropout=0.1).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(data_root / "tokenizers" / "gpt2" / name, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def run(mini: Any, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two outer steps of the published method (AdamW inside, N = 4, one by one) from the command line."""
    root = tmp_path_factory.mktemp("runs")
    words = ["model=gpt2", f"model.name={weights}", "inner.steps=4", "inner.lr=1e-3", "outer.steps=2", "outer.lr=1e-3"]
    words += ["evaluation.max_new_tokens=2", "data.limit={train:12,dev:1,test:1}", "loop.evaluate_every=0"]
    assert run_here(main, *mini.words(root, *words)) == 0
    (mark,) = root.rglob("FINISHED")
    return mark.parent


def test_two_outer_steps_change_every_weight_and_every_rate(run: Path, weights: Path) -> None:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    losses = [record["train/outer_loss"] for record in records if record["split"] == "train"]
    assert len(losses) == 2 and losses[0] == pytest.approx(4 * 10.8, rel=0.02), "four problems near log(50257)"
    before, after = load_file(weights / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys() and not any(torch.equal(before[name], after[name]) for name in before)
    rates = load_file(run / "checkpoints" / "step-000002" / "rates.safetensors")["numbers"]
    assert rates.shape == (len(before), 4) and (rates != 1e-3).all()


def test_plain_transformers_reads_the_export_with_equal_logits(run: Path, weights: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    best = json.loads((run / "checkpoints" / "step-000002" / "state.json").read_text())["run"]["best"]["step"]
    ours = load(ModelConfig(name=str(weights)), 50257, device=torch.device("cpu"), dtype=torch.float32).network.eval()
    ours.load_state_dict(load_file(run / "checkpoints" / f"step-{best:06d}" / "model.safetensors"), strict=False)
    theirs = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    ids = tokenizer(SENTENCE, return_tensors="pt").input_ids
    expected = logits(ours, select(ours), ids)
    with torch.no_grad():
        eager = AutoModelForCausalLM.from_pretrained(run / "model", attn_implementation="eager")
        for plain in (theirs, eager):  # ours come from lean modules: the same sums in another order
            torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, AutoModelForCausalLM.from_pretrained(weights)(ids).logits)


def test_the_exported_tokenizer_is_gpt2s(run: Path, weights: Path) -> None:
    from transformers import AutoTokenizer, GPT2Tokenizer

    exported, original = AutoTokenizer.from_pretrained(run / "model"), GPT2Tokenizer.from_pretrained(weights)
    assert exported(SENTENCE).input_ids == original(SENTENCE).input_ids == exported.encode(SENTENCE)
    assert (len(exported), exported.eos_token, exported.eos_token_id) == (50257, "<|endoftext|>", 50256)


def test_an_export_is_a_model_to_start_from_and_its_path_needs_no_quotes(run: Path, mini: Any, tmp_path: Path) -> None:
    words = mini.words(tmp_path, f"model.name={run / 'model'}", "method=ft_icr_st", "outer.steps=1")
    assert run_here(main, *words, "evaluation.max_new_tokens=2") == 0
