"""Make `tiny`, the shape of the tiny model and its tokenizer, and `small`, the shape of the model of scale=gpu, both in
`common/language`. Seconds. The tiny model's weights are `scripts.pretrain_tiny`'s; a changed tokenizer needs new ones.

python -m scripts.make_tiny [--folder elsewhere]
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from scripts.tiny_english import PERSONS, RELATIONS, passage

if TYPE_CHECKING:
    from transformers import GPT2Config, GPTNeoXConfig, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
REFERENCES = 32
"""`fact_0` ... `fact_31` are words of their own."""
EXTRA = (
    "Based on, can we conclude? yes no none unknown uncertain because fact theory true false and or not if then "
    "how is are related to each other who what of has have called named the a an person person's"
)
THEORIES = 2000
"""Theories, and passages, whose words become tokens."""


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Lower-cased words of the generator's English, single characters for everything else.

    A word is the same token wherever it stands, since blanks belong to no token; line ends are tokens. `'s` is one, and
    so is `son-in-law`.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(r"'s\b|[\p{L}\p{N}_]+(-in-law)?|\n|[^\s\p{L}\p{N}_]"), "isolated"),
        ]
    )
    texts = [EXTRA, *RELATIONS, *map(str, range(1, PERSONS + 1)), *(f"fact_{index}" for index in range(REFERENCES))]
    texts += [passage(0, number) for number in range(THEORIES)]
    for shape in ("random", "matched"):
        world = GeneratorConfig(
            shape=shape, relations=0.4, negation=0.3, animals=0.5, paraphrases=4, names=40, attributes=64, verbs=12
        )
        texts += [generate(world, 0, "pretrain", index)["theory"] for index in range(THEORIES // 2)]
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text.lower())}
    characters = [*sorted({chr(code) for code in range(33, 127)} - {chr(code) for code in range(65, 91)}), "\n"]
    pieces = [f"##{character}" for character in characters if character.isalnum() or character == "_"]
    vocabulary = {
        word: index
        for index, word in enumerate(dict.fromkeys(["<eos>", "<unk>", *characters, *pieces, *sorted(words)]))
    }
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Replace(" 's", "'s")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def make_shape(tokens: int) -> "GPTNeoXConfig":
    """A GPT-NeoX decoder of 0.23 M weights: rotary positions, so that a sentence looks the same wherever it stands.

    With learned absolute positions the same model needed several times as many steps to recall a fact (docs/log.md).
    Six of a head's 16 dimensions turn, at periods of 6, 20 and 61 tokens; the others compare words at any distance.
    """
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=tokens,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 30.0, "partial_rotary_factor": 0.375},
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=0,
        architectures=["GPTNeoXForCausalLM"],
    )


def make_small_shape(tokens: int) -> "GPT2Config":
    """GPT-2's architecture, 6 layers of width 512: 19 M weights."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=tokens,
        n_embd=512,
        n_layer=6,
        n_head=8,
        n_positions=1024,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        architectures=["GPT2LMHeadModel"],
    )


def main() -> None:
    """Write both config.json and the tokenizer's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="common/language", help="the one that holds both folders")
    folder = Path(parser.parse_args().folder)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "tiny")
    make_shape(len(tokenizer)).save_pretrained(folder / "tiny")
    make_small_shape(len(tokenizer)).save_pretrained(folder / "small")
    logger.info("%s: %d tokens", folder, len(tokenizer))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
