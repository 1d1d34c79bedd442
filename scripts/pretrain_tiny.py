"""Make `reckoning/tiny`: the small model and its tokenizer, pre-trained on generated English.

    python -m scripts.pretrain_tiny                  about half an hour on one core; writes reckoning/tiny
    python -m scripts.pretrain_tiny steps=200 folder=elsewhere

What it reads is language-model text alone: theories of the *training* buckets (no theory of a dev or test split can be
among them) told twice, and theories with questions, answers and reasons in the strings of `reckoning.templates`. There
is no inner loop here: every method starts from the same weights, and none of them has been meta-trained.
"""

import logging
import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from common.progress import duration
from common.seeding import seed_everything
from reckoning.config import Target, TemplateConfig
from reckoning.problems import Problem
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from reckoning.proofwriter.repaired import repaired
from reckoning.templates import Row, Templates

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

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
    steps: int = 8000
    width: int = 64
    layers: int = 4
    heads: int = 4
    window: int = 512
    batch: int = 16
    """Theories a step."""
    lr: float = 2e-3
    seed: int = 0


def make_tokenizer(theories: int = 2000) -> "PreTrainedTokenizerFast":
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
        config = GeneratorConfig(
            shape=shape, relations=0.4, negation=0.3, animals=0.5, paraphrases=4, names=41, attributes=64, verbs=12
        )
        texts += [generate(config, 0, "pretrain", index)["theory"] for index in range(theories // 2)]
    for text in texts:
        words |= {word for word, _ in split.pre_tokenize_str(text.lower())}
    characters = sorted({chr(code) for code in range(33, 127)} - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")) + ["\n"]
    pieces = ["<eos>", "<unk>", *characters, *(f"##{c}" for c in characters if c.isalnum() or c in "_'")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *sorted(words)]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def make_network(config: PretrainConfig, tokens: int) -> "GPTNeoXForCausalLM":
    """A GPT-NeoX decoder: rotary positions, so that a sentence looks the same wherever it stands."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    settings = GPTNeoXConfig(
        vocab_size=tokens,
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.window,
        tie_word_embeddings=True,
        use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=config.width**-0.5,
        bos_token_id=None,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM._from_config(settings, attn_implementation="sdpa")


Text = tuple[list[int], list[bool]]
"""Tokens, and which of them are predicted."""


def read(config: PretrainConfig, templates: Templates, step: int) -> tuple[list[Text], list[Text]]:
    """Documents and single sentences of one step."""
    documents: list[Text] = []
    sentences: list[Text] = []
    for place in range(config.batch):
        index = step * config.batch + place
        rng = random.Random(f"{config.seed}/text/{index}")
        world = GeneratorConfig(
            depths=[rng.choice((0, 1, 1, 2))],
            names=40,
            attributes=64,
            relations=rng.choice((0.0, 0.0, 0.5)),
            animals=rng.choice((0.0, 0.3)),
            distractors=rng.choice((0, 2)),
        )
        problem = repaired(generate(world, config.seed, "pretrain", index), rng)[0]
        tell = document if place % 2 else retelling
        documents.append(tell(templates, problem, rng))
        sentences.append(sentence_row(templates, problem, rng))
    return documents, sentences


def document(templates: Templates, problem: Problem, rng: random.Random) -> Text:
    """Knowledge, then questions with answers and reasons, read from left to right."""
    questions = rng.sample(problem.questions, min(3, len(problem.questions)))
    ids: list[int] = []
    scored: list[bool] = []
    for number, question in enumerate(questions):
        given = problem.facts if number == 0 else ()
        row = templates.in_context(given, problem, question, Target.multi)
        if number and rng.random() < 0.5:
            row = templates.question(problem, question, Target.multi)
        ids += row.ids
        scored += [number == 0 and rng.random() < 0.2 or place >= row.scored_from for place in range(len(row.ids))]
    return ids, scored


def retelling(templates: Templates, problem: Problem, rng: random.Random) -> Text:
    """Knowledge told twice, the second time in another order."""
    again = rng.sample(problem.facts, len(problem.facts))
    ids = templates.tokenizer.encode("\n".join([*problem.facts, *again]), add_special_tokens=False)
    half = len(ids) // 2
    return [templates.eos, *ids], [rng.random() < 0.2 or place > half for place in range(len(ids) + 1)]


def sentence_row(templates: Templates, problem: Problem, rng: random.Random) -> Text:
    """A numbered sentence on its own; the number is given."""
    index = rng.randrange(len(problem.facts))
    row: Row = templates.fact(index, problem.facts[index])
    return list(row.ids), [place >= row.scored_from for place in range(len(row.ids))]


def losses(network: torch.nn.Module, texts: list[Text], question_mark: int) -> tuple[torch.Tensor, float]:
    """Mean next-token loss, and the accuracy of the first token after a question mark (the label) in documents."""
    length = max(len(ids) for ids, _ in texts)
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    scored = torch.zeros(len(texts), length)
    for row, (tokens, wanted) in enumerate(texts):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        scored[row, : len(tokens)] = torch.tensor(wanted, dtype=torch.float)
    logits = network(input_ids=ids[:, :-1]).logits
    per_token = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    mask = scored[:, 1:].flatten()
    after = (ids[:, :-1] == question_mark).flatten() & (mask > 0)
    right = (logits.argmax(-1) == ids[:, 1:]).flatten()[after].float().mean().item()
    return (per_token * mask).sum() / mask.sum(), right


def pretrain(config: PretrainConfig) -> None:
    """Train for `config.steps` and write model and tokenizer."""
    seed_everything(config.seed)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    network = make_network(config, len(tokenizer))
    templates = Templates(TemplateConfig(), LABELS, tokenizer, config.window)
    question_mark = int(tokenizer.convert_tokens_to_ids("?"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.05)
    began, right = time.monotonic(), 0.0
    for step in range(1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(step / 100, 1 - (step - 1) / config.steps)
        documents, sentences = read(config, templates, step)
        loss, now = losses(network, documents, question_mark)
        loss = loss + 0.2 * losses(network, sentences, question_mark)[0]
        right = 0.99 * right + 0.01 * now
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            left = duration((time.monotonic() - began) / step * (config.steps - step))
            logger.info(
                "step %d of %d, %s left: loss %.3f, label accuracy %.3f", step, config.steps, left, loss.item(), right
            )
        if step % 1000 == 0:
            network.save_pretrained(config.folder)
    network.save_pretrained(config.folder)
    tokenizer.save_pretrained(config.folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    fields = PretrainConfig.__dataclass_fields__
    pretrain(PretrainConfig(**{key: type(fields[key].default)(value) for key, value in given.items()}))
