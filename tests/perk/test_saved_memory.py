"""Memories on the disk: whole, opened again with the same bits, and refused where they do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import perk
from common.errors import UserError
from common.language.objective import logits
from tests.perk.memories import MARY, MORE, QUESTIONS, ROOT, SHORT, same, train


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
