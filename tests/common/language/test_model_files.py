"""Model folders of others: no code of theirs runs, nothing asks, and no weight is missing, pickled or no weight."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.language.config import ModelConfig
from common.language.model import load, skeleton
from common.language.sources import load_tokenizer
from tests.reckoning.miniature import make_network, make_tokenizer

WEIGHTS = "model.safetensors"
NORM, MATRIX = "transformer.ln_f.bias", "transformer.h.0.attn.c_attn.weight"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GPT-2 of two layers; whoever asks a question fails."""

    def asked(*words: Any) -> str:
        raise AssertionError(f"asked: {words}")

    monkeypatch.setattr(builtins, "input", asked)
    make_network(40).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def loaded(folder: Path, **more: Any) -> torch.nn.Module:
    return load(ModelConfig(name=str(folder), **more), 8, device=torch.device("cpu"), dtype=torch.float32).network


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    found = load_file(folder / WEIGHTS)
    edit(found)
    save_file(found, folder / WEIGHTS, {"format": "pt"})


def bring_code(folder: Path, name: str = "theirs.py") -> Path:
    """Code in the folder that leaves a mark where it runs."""
    mark = folder.parent / "ran"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"open({str(mark)!r}, 'w')\nclass Theirs: ...\n")
    return mark


THEIRS = {"AutoConfig": "theirs.Theirs", "AutoModelForCausalLM": "theirs.Theirs"}


@pytest.mark.parametrize("pretrained", [True, False])
def test_code_of_a_model_folder_is_refused(folder: Path, pretrained: bool) -> None:
    mark = bring_code(folder)
    change(folder / "config.json", model_type="theirs", auto_map=THEIRS)
    for act in (lambda: loaded(folder, pretrained=pretrained), lambda: skeleton(ModelConfig(name=str(folder)))):
        with pytest.raises(UserError, match="asks for code that comes with the model .auto_map., .* is never run"):
            act()
    assert not mark.exists()


def test_code_beside_a_known_kind_does_not_run(folder: Path) -> None:
    mark = bring_code(folder)
    bring_code(folder, "custom_generate/generate.py")
    change(folder / "config.json", auto_map=THEIRS, _attn_implementation="kernels-community/flash-attn")
    assert type(loaded(folder)).__name__ == "GPT2LMHeadModel" and not mark.exists()


@pytest.mark.parametrize("whole", [True, False])
def test_code_of_a_tokenizer_does_not_run(folder: Path, whole: bool) -> None:
    make_tokenizer("a b c").save_pretrained(folder)
    mark = bring_code(folder)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.Theirs", None]}, tokenizer_class="X")
    if whole:
        load_tokenizer(ModelConfig(name=str(folder)))
    else:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(UserError, match="model.name=.*: no tokenizer"):
            load_tokenizer(ModelConfig(name=str(folder)))
    assert not mark.exists()


def with_shards(folder: Path) -> None:
    """safetensors' index that names a pickled file."""
    found = load_file(folder / WEIGHTS)
    torch.save(found, folder / "part.bin")
    (folder / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(found, "part.bin")})
    )
    (folder / WEIGHTS).unlink()


def pickled(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        torch.save(load_file(folder / WEIGHTS), folder / name)
        (folder / WEIGHTS).unlink()

    return make


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "index"])
def test_pickled_weights_are_refused_unless_asked_for(folder: Path, name: str) -> None:
    expected = load_file(folder / WEIGHTS)[MATRIX]
    (with_shards if name == "index" else pickled(name))(folder)
    found = "part.bin" if name == "index" else name
    with pytest.raises(UserError, match=rf"its weights are pickled \({found}\), .*or set model.pickled=true"):
        loaded(folder)
    loaded(folder, pretrained=False)
    if name in ("pytorch_model.bin", "index"):
        assert loaded(folder, pickled=True).state_dict()[MATRIX].equal(expected)
    else:
        with pytest.raises(UserError, match="no file named model.safetensors"):
            loaded(folder, pickled=True)


def test_pickled_weights_that_bring_code_do_not_run_it(folder: Path) -> None:
    class Theirs:
        def __reduce__(self) -> Any:
            return open, (str(folder.parent / "ran"), "w")

    torch.save({NORM: Theirs()}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="its pickled weights hold more than tensors, which is never run"):
        loaded(folder, pickled=True)
    assert not (folder.parent / "ran").exists()


EDITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "one": (lambda found: found.pop(NORM), rf"1 of 28 weights are not in its files: {NORM}; copy the files again, or"),
    "tied": (lambda found: found.pop("transformer.wte.weight"), "1 of 28 .* not in its files: transformer.wte.weight;"),
    "all": (lambda found: found.clear(), "28 of 28 weights are not in its files: .*, ...; copy"),
    "shape": (
        lambda found: found.update({NORM: torch.ones(3)}),
        rf"1 of 28 .*another shape: {NORM} is \[3\], not \[16\];",
    ),
    "int8": (lambda found: found.update({NORM: torch.ones(16, dtype=torch.int8)}), rf"{NORM} holds whole numbers;"),
    "nan": (lambda found: found[NORM].fill_(torch.nan), "its scores are not finite: weights are damaged"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_weight_that_is_not_right_is_refused_by_name(folder: Path, case: str) -> None:
    edit, message = EDITS[case]
    tensors(folder, edit)
    with pytest.raises(UserError, match=message):
        loaded(folder)


def test_buffers_and_names_without_the_heads_prefix_are_no_fault(folder: Path) -> None:
    expected = loaded(folder).state_dict()

    def edit(found: dict[str, torch.Tensor]) -> None:
        bare = {name.removeprefix("transformer."): value for name, value in found.items()}
        found.clear()
        found.update(bare | {"h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8)})

    tensors(folder, edit)
    assert all(value.equal(expected[name]) for name, value in loaded(folder).state_dict().items())


def test_a_model_in_shards_loads_and_a_lost_shard_is_named(folder: Path) -> None:
    expected = loaded(folder).state_dict()
    make_network(40).save_pretrained(folder, max_shard_size="5KB")
    (folder / WEIGHTS).unlink(missing_ok=True)
    assert all(value.equal(expected[name]) for name, value in loaded(folder).state_dict().items())
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=lost.name):
        loaded(folder)
    (folder / f"{WEIGHTS}.index.json").write_text("[]")
    with pytest.raises(UserError, match="index.json: damaged"):
        loaded(folder)


def test_an_adapter_is_no_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="it holds an adapter .adapter_config.json.; set model.name=<its base>"):
        loaded(folder)
    (folder / "base").mkdir()
    with pytest.raises(UserError, match=f"set model.name={folder / 'base'}"):
        loaded(folder)


def test_a_library_that_a_model_asks_for_is_named(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(UserError, match="model.name=.*ImportError.*bitsandbytes"):
        loaded(folder)
