"""Make `reckoning/tiny`: the small model and its tokenizer, pre-trained on generated English.

    python -m scripts.pretrain_tiny                  about 25 minutes on one core; writes reckoning/tiny
    python -m scripts.pretrain_tiny minutes=2 folder=elsewhere

What it reads is language-model text alone: theories of the *training* buckets (no theory of a dev or test split can be
among them), questions about them with answers and reasons, in the strings of `reckoning.templates`. There is no inner
loop here: every method starts from the same weights, and none of them has been meta-trained.
"""

import json
import logging
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from common.seeding import seed_everything
from reckoning.config import Target, TemplateConfig
from reckoning.problems import Problem
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from reckoning.proofwriter.repaired import repaired
from reckoning.templates import Row, Templates

logger = logging.getLogger(__name__)
LABELS = {"true": "yes", "false": "no", "unknown": "none"}
REFERENCES = 32
"""`fact_0` ... `fact_31` are words of their own."""
EXTRA = "Based on, can Can we conclude? yes no none unknown because fact theory true false and or not if then"
PUNCTUATION = ",.?:;!'\"()-_\n"


@dataclass
class PretrainConfig:
    """Settings, given as key=value."""

    folder: str = "reckoning/tiny"
    minutes: float = 25.0
    width: int = 64
    layers: int = 4
    heads: int = 4
    window: int = 512
    batch: int = 32
    """Theories a step."""
    lr: float = 2e-3
    seed: int = 0


def make_tokenizer(theories: int = 2000):  # noqa: ANN201 - a transformers class, imported inside
    """Lower-cased words of the generator's English, single characters for everything else."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(r"[\p{L}\p{N}_']+|\n|[^\s\p{L}\p{N}_']"), "isolated"),
        ]
    )
    words: set[str] = set()
    texts = [EXTRA, *(f"fact_{index}" for index in range(REFERENCES))]
    for shape in ("random", "matched"):
        config = GeneratorConfig(shape=shape, relations=0.4, negation=0.3, animals=0.5, paraphrases=4, names=41, attributes=64, verbs=12)
        texts += [generate(config, 0, "pretrain", index)["theory"] for index in range(theories // 2)]
    for text in texts:
        words |= {word for word, _ in split.pre_tokenize_str(text.lower())}
    characters = sorted({chr(code) for code in range(33, 127)} - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")) + ["\n"]
    pieces = ["<eos>", "<unk>", *characters, *(f"##{c}" for c in characters if c.isalnum() or c in "_'")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *sorted(words)]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


if __name__ == "__main__":
    t = make_tokenizer()
    print(len(t)); 
    for s in ("Based on fact_0 fact_12, can we conclude Anne is not red?","If someone is kind then they are red,The cat chases Zorro.\nX-ray"):
        i=t.encode(s); print(t.convert_ids_to_tokens(i)); print(repr(t.decode(i)))
