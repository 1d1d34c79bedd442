"""A data set, a tokenizer and a model small enough for tests of whole runs, written as a user would bring their own."""

import json
import random
import re
from itertools import permutations
from pathlib import Path
from typing import Any

NAMES = ("Anne", "Bob", "Carl", "Dora")
ATTRIBUTES = ("kind", "red", "round", "young", "big", "cold")
SIZES = {"train": 12, "dev": 4, "test": 4}
TEMPLATES = "fact_0: Based on fact_0 fact_1 fact_2, can we conclude? Can we conclude yes no none because"
WORD = r" ?\w+|[^\w\s]|\s"
DATA = """
defaults: [jsonl]
name: mini
files: {{train: {folder}/train.jsonl, dev: {folder}/dev.jsonl, test: {folder}/test.jsonl}}
labels: {{"true": "yes", "false": "no", unknown: none}}
questions_per_set: 3
cache: null
"""
MODEL = """
name: {folder}/model
"""


def lines(split: str) -> list[dict[str, Any]]:
    """Three questions a theory: two facts and a rule, one question of each label."""
    combinations = list(permutations(ATTRIBUTES, 3))
    random.Random(0).shuffle(combinations)
    start = {"train": 0, "dev": SIZES["train"], "test": SIZES["train"] + SIZES["dev"]}[split]
    found = []
    for index, (a, b, c) in enumerate(combinations[start : start + SIZES[split]]):
        x, y = NAMES[index % 4], NAMES[(index + 1) % 4]
        facts = [f"{x} is {a}.", f"{y} is {c}.", f"If someone is {a} then they are {b}."]
        for text, answer, relevant in (
            (f"{x} is {b}", "true", [0, 2]),
            (f"{x} is not {b}", "false", [0, 2]),
            (f"{y} is {b}", "unknown", [2]),
        ):
            found.append({"facts": facts, "question": text, "answer": answer, "relevant": relevant})
            found[-1]["kinds"] = ["fact", "fact", "rule"]
    return found


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def make_tokenizer(texts: str) -> Any:
    """Words with the blank before them, as in GPT-2, and single characters, from `texts`."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(["<eos>", "<unk>", "\n", " ", *re.findall(WORD, texts)])
    words |= dict.fromkeys([f" {word}" for word in words if word.isalpha()])
    words |= dict.fromkeys([word.strip(" ") for word in words if word.strip(" ")])
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def make_network(vocabulary: int, *, width: int = 16, window: int = 64, dropout: float = 0.0, seed: int = 0) -> Any:
    """A GPT-2 of two layers with random weights, the same on every machine, and eager attention."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = GPT2Config(
        vocab_size=vocabulary, n_layer=2, n_embd=width, n_head=2, n_positions=window, bos_token_id=0, eos_token_id=0,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    )  # fmt: skip
    network = GPT2LMHeadModel._from_config(settings, attn_implementation="eager")
    rng = random.Random(seed)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            values = [rng.gauss(0, 0.02) for _ in range(parameter.numel())]
            parameter.data.copy_(torch.tensor(values).view_as(parameter))
    return network


def make_all(folder: Path) -> Path:
    """Files, tokenizer, weights and the two YAML files that name them; returns `folder`."""
    texts = [TEMPLATES]
    for split in SIZES:
        records = lines(split)
        write_lines(folder / f"{split}.jsonl", records)
        texts += [" ".join([*record["facts"], record["question"]]) for record in records]
    tokenizer = make_tokenizer(" ".join(texts))
    tokenizer.save_pretrained(folder / "model")
    make_network(len(tokenizer), dropout=0.1).save_pretrained(folder / "model")
    for group, text in (("data", DATA), ("model", MODEL)):
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mini.yaml").write_text(text.format(folder=folder))
    return folder
