"""Memories: written once, asked often, swapped and continued; and what the documentation shows of them."""

import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import perk
from common.errors import UserError
from perk.babilong.config import HaystackConfig
from perk.babilong.haystack import open_haystack
from perk.babilong.passage import FINE, passage, segmented
from perk.segments import segments_of
from perk.tokens import Words
from tests.perk.memories import MARY, MORE, PLACE, QUESTIONS, ROOT, differ, same


def test_importing_the_package_loads_no_torch_and_offers_the_reader() -> None:
    program = "import perk, sys; print('torch' in sys.modules, perk.load.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "load", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        perk.nothing  # noqa: B018


def test_it_answers_as_the_evaluation_does(home: Path, reader: perk.Reader) -> None:
    from perk import data
    from perk.evaluate import respond, restored

    config, parts = restored(home / PLACE)
    problems = data.load(config.data)["test"]
    items = respond(parts, problems, config)
    assert len({item.more["response"] for item in items}) > 1
    by_context: dict[str, list[Any]] = {}
    for item in items:
        by_context.setdefault(item.group, []).append(item)
    for problem in problems:
        memory = reader.read(problem.segments)
        texts = [question.text for question in problem.questions]
        assert memory.respond(texts) == [item.more["response"] for item in by_context[problem.id]]
        assert memory.ask(texts) == [item.more["said"] for item in by_context[problem.id]]
        assert [memory.ask(text) for text in texts] == memory.ask(texts)


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({}, "kitchen"),
        ({"method__target": "answer"}, "mary went there so kitchen"),
        ({"data__task": "apis", "data__name": "x"}, "mary went there so kitchen"),
        ({"data__task": "students", "data__name": "x"}, "kitchen"),
    ],
    ids=["support first", "answer alone", "no support known", "some with support"],
)
def test_the_answer_is_what_follows_the_support_where_there_is_one(
    changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], wanted: str
) -> None:
    memory = perk.read(MARY, changed(**settings))
    monkeypatch.setattr(memory.reader.parts.templates.tokenizer, "decode", lambda ids, **_: said.pop())
    said = ["mary went there so kitchen"] * 2
    assert memory.respond("Where is Mary?") == "mary went there so kitchen"
    assert memory.ask("Where is Mary?") == wanted


def test_two_memories_are_swapped_without_touching_the_model(reader: perk.Reader) -> None:
    before = {name: w.detach().clone() for name, w in reader.parts.model.network.named_parameters()}
    first, second = reader.read(MARY), reader.read(MORE)
    weights = [{name: w.clone() for name, w in memory.weights.items()} for memory in (first, second)]
    said = [memory.respond(QUESTIONS) for memory in (first, second)]
    assert said[0] != said[1]
    for _ in range(2):
        assert [memory.respond(QUESTIONS) for memory in (first, second)] == said
    assert same(first.weights, weights[0]) and same(second.weights, weights[1])
    assert same(dict(reader.parts.model.network.named_parameters()), before)
    assert first.ask([]) == []


def test_memories_asked_and_written_in_threads_answer_as_one_after_the_other(
    reader: perk.Reader, tmp_path: Path
) -> None:
    texts = ["Mary went to the kitchen.", "John went to the garden.", "Sandra went to the office."]
    questions = [f"Where is {name}?" for name in ("Mary", "John", "Sandra", "Daniel")]

    def work(index: int) -> list[str]:
        memory = reader.read([texts[index]])
        said = [memory.respond(question) for question in questions]
        memory.save(tmp_path / str(index))
        opened = reader.open(tmp_path / str(index))
        return [*said, *opened.respond(questions)]

    expected = [work(index) for index in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, [0, 1, 2] * 3)) == expected * 3


def test_micro_batches_write_the_same_memory(reader: perk.Reader) -> None:
    whole = reader.read(MARY, micro_batch=0)
    for size in (1, 2):
        part = reader.read(MARY, micro_batch=size)
        assert differ(part.weights, whole.weights) < 1e-9
    assert differ(reader.read(MARY, inner_steps=1).weights, whole.weights) > 1e-3


def by_hand(reader: perk.Reader, start: dict[str, Tensor], texts: list[str], first: int) -> dict[str, Tensor]:
    """PyTorch's AdamW on the mean of the weighted token losses, one segment after the other, without our inner loop."""
    parts, inner = reader.parts, reader.config.inner
    tokenizer, network = parts.templates.tokenizer, parts.model.network
    weights = {name: w.detach().clone().requires_grad_() for name, w in start.items()}
    assert inner.rule == "adamw" and parts.rates is not None and parts.weigher is not None
    optimiser = torch.optim.AdamW(
        [{"params": [w]} for w in weights.values()], betas=(inner.beta1, inner.beta2), eps=inner.eps,
        weight_decay=inner.weight_decay,
    )  # fmt: skip
    rates = parts.rates.rates().detach()
    for step in range(inner.steps):
        for name, group in zip(weights, optimiser.param_groups, strict=True):
            group["lr"] = rates[parts.rates.row[name], step].item()
        total, count = torch.zeros((), dtype=torch.double), 0
        for place, text in enumerate(texts, first):
            label, said = (tokenizer(t, add_special_tokens=False).input_ids for t in (f"document {place} : ", text))
            ids = torch.tensor([[*label, *said]])
            found = functional_call(network, weights, kwargs={"input_ids": ids, "output_hidden_states": True})
            losses = -found.logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
            weighed = losses * parts.weigher(found.hidden_states[-1][0, 1:])
            total, count = total + weighed[len(label) - 1 :].sum(), count + len(said)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    return {name: w.detach() for name, w in weights.items()}


def test_appending_goes_on_from_what_is_written(reader: perk.Reader) -> None:
    memory = reader.read(MARY)
    slow = reader.learner.writer.slow
    assert differ(memory.weights, by_hand(reader, slow, MARY, 0)) < 1e-6
    wanted = by_hand(reader, memory.weights, MORE, len(MARY))
    memory.append(MORE)
    assert memory.segments == len(MARY) + len(MORE)
    assert differ(memory.weights, wanted) < 1e-6
    assert differ(memory.weights, reader.read([*MARY, *MORE]).weights) > 1e-3
    before = memory.weights
    with pytest.raises(UserError, match="an empty context"):
        memory.append(" \n ")
    assert memory.weights is before and memory.segments == len(MARY) + len(MORE)


def test_running_text_is_cut_as_the_builders_cut_theirs(reader: perk.Reader, tmp_path: Path) -> None:
    haystack = open_haystack(HaystackConfig(), None, 0)
    for budget, size in ((200, 32), (37, 16), (9, 32)):
        pieces, _ = passage(haystack, "test", random.Random(budget), Words(), budget, size // FINE)
        wanted = [" ".join(piece.text for piece in group) for group in segmented(pieces, size)]
        assert segments_of(" ".join(piece.text for piece in pieces), Words(), size) == wanted
    assert segments_of("\n ", Words(), 32) == []
    text = "Mary went to the kitchen.\nJohn went to the garden. " * 8
    (tmp_path / "text.txt").write_text(text)
    cut = segments_of(text, Words(), reader.config.data.segment_tokens)
    assert len(cut) > 4
    for context in (text, tmp_path / "text.txt"):
        memory = reader.read(context)
        assert memory.segments == len(cut) and same(memory.weights, reader.read(cut).weights)


def test_a_text_of_one_token_can_be_memorised_behind_a_label(reader: perk.Reader) -> None:
    memory = reader.read("Kitchen")
    assert memory.segments == 1 and differ(memory.weights, dict(reader.learner.writer.slow)) > 1e-3


@pytest.mark.parametrize(
    "context, more, message",
    [
        ("", {}, "an empty context"),
        ([], {}, "an empty context"),
        (["mary went.", " "], {}, "segment 1 of 2 is empty"),
        (["mary went.", "mary " * 4100], {}, r"context, segment 1: 41\d\d tokens, the model reads 4096"),
        (MARY, {"micro_batch": -1}, "micro_batch=-1: use a whole number of 0"),
        (MARY, {"micro_batch": 2.0}, "micro_batch=2.0: use a whole number of 0 or more"),
        (MARY, {"inner_steps": 0}, "inner_steps=0: use a whole number of 1 or more"),
        (MARY, {"inner_steps": 2.0}, "inner_steps=2.0: use a whole"),
        (MARY, {"inner_steps": float("nan")}, "inner_steps=nan: use a whole"),
        (Path("nowhere.txt"), {}, "nowhere.txt: no such file"),
    ],
)
def test_what_cannot_be_read_is_refused(reader: perk.Reader, context: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reader.read(context, **more)


def test_a_file_in_another_encoding_a_bare_token_and_a_long_question_are_refused(
    reader: perk.Reader, changed: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes("Marie va à la cuisine.".encode("latin-1"))
    with pytest.raises(UserError, match="latin.txt:1: not UTF-8 text"):
        reader.read(tmp_path / "latin.txt")
    with pytest.raises(UserError, match=r"a question of 41\d\d tokens, the model reads 4096"):
        reader.read(MARY).ask("mary " * 4100)
    bare = perk.load(changed(data__templates__label=""))
    with pytest.raises(UserError, match="context: a context of 1 token .*nothing to predict"):
        bare.read(["mary"])


def test_what_has_no_memory_is_not_loaded(changed: Callable[..., Path], home: Path) -> None:
    with pytest.raises(UserError, match="method.learner=in_context writes nothing into weights"):
        perk.load(changed(method__learner="in_context"))
    with pytest.raises(UserError, match="no run folder"):
        perk.load(home / "elsewhere")
    with pytest.raises(UserError, match="device=tpu: use one of auto, cpu, cuda"):
        perk.load(home / PLACE, device="tpu")


def test_the_documented_snippet_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "perk" / "README.md").read_text()
    section = text.split("\n## Read once, ask often\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (scale,) = re.findall(r"max_new_tokens: (\d+)", (ROOT / "conf" / "perk" / "scale" / "cpu.yaml").read_text())
    limit = f"max_new_tokens={scale}"
    assert len(blocks) == 2 and PLACE in blocks[0] and limit in blocks[1]
    monkeypatch.chdir(home)
    names: dict[str, Any] = {}
    shown = io.StringIO()
    with redirect_stdout(shown):
        exec(compile(blocks[0], "perk/README.md", "exec"), names)
        own = names["reader"].config.evaluation.max_new_tokens  # of the small run
        exec(compile(blocks[1].replace(limit, f"max_new_tokens={own}"), "perk/README.md", "exec"), names)
    lines = shown.getvalue().splitlines()
    assert names["memory"].respond(names["question"]) == lines[-1], "peft alone says the same"
    assert (home / "memories" / "mary" / "adapter_model.safetensors").is_file()
