"""Mamba as in-context learner: the loss of `transformers`, learned down, for prompts of any length."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig

from common.errors import UserError
from perk.build import Parts, build
from perk.config import Learner, MethodConfig, ModelConfig, Target, TrainConfig
from perk.methods import InContext
from perk.problems import Problem, Question
from tests.learners import losses_of
from tests.reckoning.miniature import make_tokenizer

ROOMS = ("kitchen", "garden", "office", "hallway")
QUESTION = "Where is Mary?"


def problem_of(number: int, days: int = 2) -> Problem:
    """Mary's room, and as many days of weather."""
    room = ROOMS[number % len(ROOMS)]
    segments = (f"Mary went to the {room}.", *("It rained all day.",) * days)
    return Problem(f"a{number}", segments, (Question(f"a{number}/0", QUESTION, (room,), "qa1"),), (), 0)


def built(folder: Path, **model: Any) -> Parts:
    words = make_tokenizer(f"Mary went to the {' '.join(ROOMS)}. It rained all day. Question: {QUESTION} Answer:")
    words.save_pretrained(folder / "words")
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "state_size": 8, "vocab_size": len(words)}
    MambaConfig(initializer_range=1.0, **sizes, **ends).save_pretrained(folder)
    method = MethodConfig(learner=Learner.in_context, target=Target.answer, adapter=False, token_weights=False)
    settings = ModelConfig(name=str(folder), tokenizer=str(folder / "words"), pretrained=False, **model)
    torch.manual_seed(0)
    return build(TrainConfig(model=settings, method=method), torch.device("cpu"), torch.float64)


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """Of rows that are unequal and so padded together."""
    parts = built(tmp_path)
    problems = [problem_of(0, days=1), problem_of(1, days=4)]
    expected = 0.0
    for problem in problems:
        (row,) = parts.learner.rows(problem)
        labels = torch.tensor([[-100] * row.scored_from + list(row.ids[row.scored_from :])])
        network: Any = parts.model.network
        expected += network(input_ids=torch.tensor([row.ids]), labels=labels, use_cache=False).loss.item()
    (loss,) = losses_of(parts.learner, problems)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_it_learns_to_copy_an_answer_out_of_its_prompt(tmp_path: Path) -> None:
    parts = built(tmp_path)
    problems = [problem_of(number) for number in range(len(ROOMS))]
    optimiser = torch.optim.Adam(parts.model.network.parameters(), lr=0.01)
    losses = []
    for _ in range(90):
        optimiser.zero_grad()
        (loss,) = losses_of(parts.learner, problems)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    for problem in problems:
        (row,) = parts.learner.rows(problem)
        network: Any = parts.model.network
        said = network(input_ids=torch.tensor([row.prompt]), use_cache=False).logits[0, -1].argmax().item()
        assert said == row.ids[row.scored_from]


def test_no_prompt_is_too_long_and_no_position_is_stretched(tmp_path: Path) -> None:
    parts = built(tmp_path)
    assert isinstance(parts.learner, InContext)
    assert len(parts.learner.rows(problem_of(0, days=500))[0].ids) > 2500 and not parts.learner.cut
    with pytest.raises(UserError, match="model.yarn=4.0: .* has no rotary positions; use 0"):
        built(tmp_path, yarn=4.0)
