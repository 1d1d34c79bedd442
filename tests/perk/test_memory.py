"""Memories: written once, asked often, swapped, continued, saved as a plain peft adapter and refused elsewhere."""

import io
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

import perk
from common.errors import UserError
from common.language.objective import logits
from perk.babilong.config import HaystackConfig
from perk.babilong.haystack import open_haystack
from perk.babilong.passage import FINE, passage, segmented
from perk.segments import segments_of
from perk.tokens import Words
from tests.runs import run_here

ROOT = Path(__file__).parents[2]
PLACE = "runs/perk/babilong_qa1/scale-cpu"
"""Where the documentation has its run."""
TINY = [
    "+experiment=babilong_qa1", "scale=cpu", "data.count={train:2,dev:1,test:3}", "data.length=384", "data.segment=128",
    "data.shrink=8", "data.cache=null",
    "runtime.dtype=float64", "outer.batch_problems=2", "loop.log_every=1", "loop.evaluate_every=0",
    "evaluation.max_new_tokens=24",
]  # fmt: skip
SHORT = ["data.count={train:1,dev:1,test:1}", "outer.batch_problems=1", "evaluation.max_new_tokens=1"]
MARY = ["mary went to the kitchen.", "the river was cold.", "john went to the garden. the night was long."]
MORE = ["mary went to the office.", "john took the football."]
QUESTIONS = ["Where is Mary?", "Where is John?"]


def train(place: Path, *words: str, steps: int) -> Path:
    from perk.train import main

    assert run_here(main, *TINY, f"outer.steps={steps}", *words, f"hydra.run.dir={place}") == 0
    return place


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run of a few steps where the documentation has its own."""
    folder = tmp_path_factory.mktemp("home")
    train(folder / PLACE, steps=1)
    return folder


@pytest.fixture(scope="module")
def reader(home: Path) -> perk.Reader:
    return perk.load(home / PLACE)


@pytest.fixture
def changed(home: Path, tmp_path: Path) -> Callable[..., Path]:
    """The run with other settings in its configuration."""

    def call(**settings: Any) -> Path:
        folder = Path(shutil.copytree(home / PLACE, tmp_path / "changed"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        for key, value in settings.items():
            *path, last = key.split("__")
            part = config
            for name in path:
                part = part[name]
            part[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return call


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(value.equal(b[name]) for name, value in a.items())


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest entry of its tensor."""
    assert a.keys() == b.keys()
    return max(((a[name] - b[name]).abs().max() / b[name].abs().max()).item() for name in b)


# ---- what is read and said


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


# ---- what is saved


def plain(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The saved memory and its tokenizer, by the libraries alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "common" / "language" / "tiny_stories")
    return PeftModel.from_pretrained(base, str(folder)).eval(), tokenizer


def check_plain(memory: perk.Memory, folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    network, tokenizer = plain(folder, dtype)
    prompt = json.loads((folder / "memory.json").read_text())["prompt"]
    for question in QUESTIONS:
        text = prompt.replace("{question}", question)
        given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            found = network.generate(**given, do_sample=False, max_new_tokens=24, pad_token_id=tokenizer.eos_token_id)
            theirs = network(found).logits
            ours = logits(memory.reader.parts.model.network, memory.weights, found)
            without = logits(memory.reader.parts.model.network, {}, found)
        said = tokenizer.decode(found[0, given.input_ids.shape[1] :], skip_special_tokens=True)
        assert said == memory.respond(question)
        torch.testing.assert_close(theirs.to(ours.dtype), ours, rtol=0, atol=tolerance)
        assert (without - ours).abs().max() > 0.1, "the memory is what makes the difference"


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
def test_peft_alone_answers_the_same(
    changed: Callable[..., Path], tmp_path: Path, dtype: str, tolerance: float
) -> None:
    memory = perk.read(MARY, changed(runtime__dtype=dtype))
    memory.save(tmp_path / "memory")
    assert {path.name for path in (tmp_path / "memory").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "memory.json", "README.md",
    }  # fmt: skip
    settings = json.loads((tmp_path / "memory" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (
        "LORA",
        16,
        16,
        True,
    )
    check_plain(memory, tmp_path / "memory", getattr(torch, dtype), tolerance)


def test_a_saved_memory_is_opened_again_with_the_same_bits_and_goes_on(reader: perk.Reader, tmp_path: Path) -> None:
    memory = reader.read(MARY)
    memory.save(tmp_path / "memory")
    opened = reader.open(tmp_path / "memory")
    assert same(opened.weights, memory.weights) and opened.segments == memory.segments
    assert opened.respond(QUESTIONS) == memory.respond(QUESTIONS)
    memory.append(MORE)
    assert not same(opened.weights, memory.weights)
    opened.append(MORE)
    assert same(opened.weights, memory.weights)
    memory.save(tmp_path / "memory")
    assert same(reader.open(tmp_path / "memory").weights, memory.weights), "the older one is replaced"


def test_a_memory_is_written_whole_or_not_at_all(
    reader: perk.Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, other = reader.read(MARY), reader.read(MORE)
    memory.save(tmp_path / "memory")
    with monkeypatch.context() as broken:
        broken.setattr("common.run.memory.write_synced", full)
        with pytest.raises(UserError, match="cannot write the memory .*No space left.*name another folder"):
            other.save(tmp_path / "memory")
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]
    assert same(reader.open(tmp_path / "memory").weights, memory.weights)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    for taken in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(UserError, match="is there and no saved memory"):
            memory.save(taken)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "dear diary"


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_no_memory_of_this_model_is_refused(reader: perk.Reader, tmp_path: Path) -> None:
    from peft import IA3Config, LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    source = tmp_path / "memory"
    reader.read(MARY).save(source)
    rank = reader.config.model.lora.rank
    every = json.loads((source / "adapter_config.json").read_text())["target_modules"]

    def refused(folder: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            reader.open(folder)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(source, tmp_path / name))

    refused(tmp_path / "nowhere", r"no saved memory \(memory.json is missing; none there\)")
    foreign = copy("foreign")
    (foreign / "memory.json").unlink()
    refused(foreign, "memory.json is missing; it holds adapter_config.json, so an adapter of other code")
    for name, content, message in (
        ("memory.json", "{", "memory.json: damaged"),
        ("memory.json", '{"schema": 1}', "memory.json: damaged"),
        ("adapter_config.json", "[]", "damaged adapter"),
        ("adapter_model.safetensors", "", "damaged adapter"),
    ):
        damaged = copy(f"damaged-{name}-{len(content)}")
        (damaged / name).write_text(content)
        refused(damaged, message)
    gone = copy("gone")
    (gone / "adapter_model.safetensors").unlink()
    refused(gone, "no adapter .adapter_model.safetensors is missing")
    newer = copy("newer")
    side = json.loads((newer / "memory.json").read_text())
    (newer / "memory.json").write_text(json.dumps({**side, "schema": 2}))
    refused(newer, "schema 2, this version reads 1")

    # adapters that peft itself made, of other shapes
    usual = {"r": rank, "lora_alpha": 16, "use_rslora": True, "target_modules": every}
    for name, settings, message in (
        ("rank", LoraConfig(**{**usual, "r": 4}), f"with r=4, this model's has {rank}"),
        ("scale", LoraConfig(**{**usual, "lora_alpha": 8}), "lora_alpha=8, this model's has 16"),
        ("plain", LoraConfig(**{**usual, "use_rslora": False}), "use_rslora=None, this model's has True"),
        ("targets", LoraConfig(**{**usual, "target_modules": every[:1]}), r"target_modules=\['gpt_neox"),
        ("kind", IA3Config(target_modules=every, feedforward_modules=[]), "of kind .*IA3.*this model has .*LORA"),
    ):
        base = AutoModelForCausalLM.from_pretrained(ROOT / "common" / "language" / "tiny_stories")
        get_peft_model(base, settings).save_pretrained(tmp_path / name)
        shutil.copy(source / "memory.json", tmp_path / name)
        refused(tmp_path / name, message)

    tensors = load_file(source / "adapter_model.safetensors")
    first = min(tensors)
    for name, content, message in (
        ("without", {key: value for key, value in tensors.items() if key != first}, f"{first} is missing, this model"),
        ("shape", {**tensors, first: tensors[first][:1].clone()}, rf"{first} is \[1, \d+\], this model needs \[{rank}"),
        ("beside", {**tensors, "other": tensors[first].clone()}, "other has no place in this model"),
    ):
        odd = copy(name)
        save_file(content, odd / "adapter_model.safetensors")
        refused(odd, message)


def test_a_base_without_files_of_its_own_is_found_in_the_run_and_is_another_base(
    reader: perk.Reader, tmp_path: Path
) -> None:
    place = train(tmp_path / "random", "model.pretrained=false", *SHORT, steps=1)
    memory = perk.read(MARY, place)
    memory.save(tmp_path / "memory")
    settings = json.loads((tmp_path / "memory" / "adapter_config.json").read_text())
    assert Path(settings["base_model_name_or_path"]) == place / "model" / "base"
    network, _ = plain(tmp_path / "memory", torch.float64)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        ours = logits(memory.reader.parts.model.network, memory.weights, ids)
        torch.testing.assert_close(network(ids).logits, ours, rtol=0, atol=1e-10)
    side = json.loads((tmp_path / "memory" / "memory.json").read_text())
    own = memory.reader.open(tmp_path / "memory")
    assert same(own.weights, memory.weights)
    with pytest.raises(UserError, match=rf"the base tiny_stories \({side['fingerprint']}\), the one here is tiny_stor"):
        reader.open(tmp_path / "memory")
    shutil.rmtree(place / "model")
    with pytest.raises(UserError, match="finish the training of the run first"):
        memory.save(tmp_path / "again")


def test_weights_outside_the_adapter_are_in_no_saved_memory(reader: perk.Reader, tmp_path: Path) -> None:
    place = train(tmp_path / "all", "method=reckoning", "inner.steps=1", *SHORT, steps=1)
    memory = perk.read(MARY, place)
    assert len(memory.weights) > 20 and memory.respond("Where is Mary?")
    with pytest.raises(UserError, match="method.adapter=false writes into all weights"):
        memory.save(tmp_path / "memory")
    reader.read(MARY).save(tmp_path / "memory")
    with pytest.raises(UserError, match="method.adapter=false, so no saved memory fits"):
        memory.reader.open(tmp_path / "memory")
    adapter = reader.parts.model.adapter
    assert adapter is not None
    with pytest.raises(UserError, match="such as gpt_neox.embed_in.weight, belong to no adapter"):
        adapter.adapted({"gpt_neox.embed_in.weight": torch.zeros(1)}, tmp_path)


def test_matrices_that_are_not_fast_are_saved_and_must_be_those_of_the_run(
    reader: perk.Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with inner.weights=['*lora_B*']."""
    writer = reader.learner.writer
    monkeypatch.setattr(writer, "slow", {name: w for name, w in writer.slow.items() if "lora_B" in name})
    memory = reader.read(MARY)
    memory.save(tmp_path / "memory")
    check_plain(memory, tmp_path / "memory", torch.float64, 1e-10)
    assert same(reader.open(tmp_path / "memory").weights, memory.weights)
    file = tmp_path / "memory" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: value * (1 + ("lora_A" in key)) for key, value in tensors.items()}, file)
    with pytest.raises(UserError, match="leaves alone are not those of"):
        reader.open(tmp_path / "memory")


# ---- what the documentation shows


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
