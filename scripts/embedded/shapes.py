"""Make the shapes of the embedded models in `common/language`, and tokenizers of their own for the tiny ones: `tiny`,
`tiny_stories`, and `small`, which has the words of `tiny`. Seconds. The tiny models' weights are
`scripts.embedded.pretrain`'s; a changed tokenizer needs new ones.

python -m scripts.embedded shapes [--folder elsewhere]
"""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perk.apis import generator as apis
from perk.documents import generator as articles
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from scripts.embedded import stories_english
from scripts.embedded.tiny_english import PERSONS, RELATIONS, passage

if TYPE_CHECKING:
    from transformers import GPT2Config, GPTNeoXConfig, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
REFERENCES = 32
"""`fact_0` ... `fact_31` are words of their own."""
EXTRA = (
    "Based on, can we conclude? yes no none unknown uncertain because fact theory true false and or not if then "
    "how is are related to each other who what of has have called named the a an person person's"
)
FRAMES = (
    "Document (Title: ): is a town on the river . It has thousand inhabitants and is known for its . The first "
    "record of it is from the year . was a an born in . The best known work is , finished at the age of . flows "
    "past saw the birth of On which river does the town lie in which was born? Who was born first, or? domain "
    "framework Hugging Face Transformers functionality api_name api_arguments inputs max_length N A "
    "python_environment_requirements transformers torch example_code model from_pretrained performance dataset "
    "accuracy description A model to Instruction: To load api "
)
"""What articles and API documents say around invented names, which are said syllable by syllable."""
QUESTIONS = (
    "Where is was before What is of Who did give to gave received the What is the name of the student with ID? "
    "What major is student with ID studying? What is the grade of Which year is student in? Which school is the "
    "student enrolled in? Does student has a higher grade than student? study the same major as Are student and "
    "student enrolled in the same school? What is the highest lowest average grade among all students? How many "
    "students study are List the IDs of the students with the highest grades, equal grades by ID first Yes No "
    "question answer "
)
STORIES = 300
"""Passages of a kind whose words become tokens of `tiny_stories`."""
THEORIES = 2000
"""Theories, and passages, whose words become tokens."""


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Lower-cased words of the generator's English, single characters for everything else.

    A word is the same token wherever it stands, since blanks belong to no token; line ends are tokens. `'s` is one, and
    so is `son-in-law`.
    """
    from tokenizers import decoders

    texts = [EXTRA, *RELATIONS, *map(str, range(1, PERSONS + 1)), *(f"fact_{index}" for index in range(REFERENCES))]
    texts += [passage(0, number) for number in range(THEORIES)]
    for shape in ("random", "matched"):
        world = GeneratorConfig(
            shape=shape, relations=0.4, negation=0.3, animals=0.5, paraphrases=4, names=40, attributes=64, verbs=12
        )
        texts += [generate(world, 0, "pretrain", index)["theory"] for index in range(THEORIES // 2)]
    return _of_words(texts, [], [decoders.Replace(" 's", "'s")])


def make_stories_tokenizer() -> "PreTrainedTokenizerFast":
    """The same for the English of `stories_english`. A number is said two digits at a time, an invented name syllable
    by syllable; decoding joins decimals and calls as the generators write them."""
    from tokenizers import Regex, decoders

    texts = [stories_english.every_word(), FRAMES, QUESTIONS]
    for kind in ("stories", "records", "text"):
        passages = (stories_english.KINDS[kind](0, number) for number in range(STORIES))
        texts += [re.sub(r"\d+", " ", passage) for passage in passages]
    numbers = [f"{number:02d}" for number in range(100)]
    parts = [*articles.MIDDLES, *(end for ends in articles.ENDS.values() for end in ends), *apis.SYLLABLES]
    starts = [*(start.lower() for start in articles.STARTS), *apis.SYLLABLES, *map(str, range(100))]
    pieces = [*starts, *(f"##{piece}" for piece in dict.fromkeys([*numbers, *parts]))]
    joined = [
        (r"(?<=\w) (?='s\b)", ""),
        (r"(?<=\w) (?=[/(])|(?<=[/(<>\[]) | (?=[.,;:?!)>\]])", ""),
        (r"(?<=\(') | (?='\))", ""),
        (r"(?<=\.) (?=from_pretrained)|(?<=\d\.) (?=\d)", ""),
        (" - ", "-"),
    ]
    rules = [decoders.Replace(Regex(pattern), replacement) for pattern, replacement in joined]
    return _of_words(texts, pieces, [decoders.Fuse(), *rules])


def _of_words(texts: Sequence[str], more: Sequence[str], rules: Sequence[Any]) -> "PreTrainedTokenizerFast":
    """Lower-cased words of `texts`, single characters and the pieces `more`; `rules` end decoding."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(r"'s\b|[\p{L}\p{N}_]+(-in-law)?|\n|[^\s\p{L}\p{N}_]"), "isolated"),
        ]
    )
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text.lower())}
    characters = [*sorted({chr(code) for code in range(33, 127)} - {chr(code) for code in range(65, 91)}), "\n"]
    pieces = [f"##{character}" for character in characters if character.isalnum() or character == "_"]
    vocabulary = {
        word: index
        for index, word in enumerate(dict.fromkeys(["<eos>", "<unk>", *characters, *pieces, *more, *sorted(words)]))
    }
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(prefix="##", cleanup=False), *rules])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def make_shape(tokens: int, window: int = 512) -> "GPTNeoXConfig":
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
        max_position_embeddings=window,
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


def main(words: Sequence[str]) -> None:
    """Write both config.json and the tokenizer's files."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.embedded shapes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", default="common/language", help="the one that holds tiny, tiny_stories and small")
    folder = Path(parser.parse_args(words).folder)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "tiny")
    make_shape(len(tokenizer)).save_pretrained(folder / "tiny")
    stories = make_stories_tokenizer()
    stories.save_pretrained(folder / "tiny_stories")
    make_shape(len(stories), window=4096).save_pretrained(folder / "tiny_stories")
    make_small_shape(len(tokenizer)).save_pretrained(folder / "small")
    logger.info("%s: %d and %d tokens", folder, len(tokenizer), len(stories))
