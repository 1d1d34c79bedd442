"""Where exported adapters and saved memories say that their base is: found from any folder, and after a move."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.language.adapter import Adapter
from common.language.config import LoraConfig, ModelConfig
from common.language.model import LanguageModel, load
from common.run.export import export
from tests.reckoning.miniature import make_network

IDS = torch.arange(9)[None]
LORA: dict[str, Any] = {"rank": 2, "targets": ["c_attn"]}
CASES: dict[str, dict[str, Any]] = {
    "folder": {},
    "random": {"pretrained": False},
    "embeddings": {"lora": LoraConfig(**LORA, train=["*.wpe.*"])},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model in models/own."""
    (tmp_path / "here").mkdir()
    make_network(40).save_pretrained(tmp_path / "here" / "models" / "own")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def model_of(name: str = "models/own", lora: LoraConfig | None = None, **more: Any) -> LanguageModel:
    config = ModelConfig(name=name, lora=lora or LoraConfig(**LORA), **more)
    model = load(config, 8, device=torch.device("cpu"), dtype=torch.float32)
    assert model.adapter is not None
    with torch.no_grad():
        for weight in model.adapter.matrices().values():
            weight.normal_()
    model.network.eval()
    return model


def base_of(folder: Path) -> str:
    return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])


@torch.no_grad()
def scores(network: nn.Module) -> Tensor:
    return network(input_ids=IDS).logits


@pytest.mark.parametrize("case", CASES)
def test_an_export_loads_from_anywhere_and_after_a_move(here: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    model, folder = model_of(**CASES[case]), Path("runs/one/model")
    export(folder, model.files(folder))
    assert base_of(folder) == str(here / ("models/own" if case == "folder" else folder / "base"))
    (here.parent / "there").mkdir()
    monkeypatch.chdir(here.parent / "there")
    whole = here / folder
    loaded = [AutoPeftModelForCausalLM.from_pretrained(whole), AutoModelForCausalLM.from_pretrained(whole)]
    shutil.move(here / "runs", here.parent / "moved")
    whole = here.parent / "moved" / "one" / "model"
    beside = whole / "base" if case != "folder" else here / "models" / "own"
    loaded.append(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(beside), whole))
    loaded.append(AutoModelForCausalLM.from_pretrained(whole))
    for network in loaded:
        torch.testing.assert_close(scores(network.eval()), scores(model.network), rtol=1e-5, atol=1e-5)


def test_a_base_in_several_files_is_found_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, PreTrainedModel

    model, folder, save = model_of(pretrained=False), here / "runs", PreTrainedModel.save_pretrained
    monkeypatch.setattr(
        PreTrainedModel, "save_pretrained", lambda self, *args, **how: save(self, *args, max_shard_size="5KB", **how)
    )
    export(folder, model.files(folder))
    assert len(list((folder / "base").glob("*.safetensors"))) > 1
    found = AutoModelForCausalLM.from_pretrained(shutil.move(folder, here.parent / "moved")).eval()
    torch.testing.assert_close(scores(found), scores(model.network), rtol=1e-5, atol=1e-5)


def test_a_memory_names_its_base_by_the_whole_path(here: Path) -> None:
    run = Path("runs/model")
    for config, expected in (({}, here / "models" / "own"), ({"pretrained": False}, here / run / "base")):
        model = model_of(**config)
        export(run, model.files(run))
        adapter: Adapter = model.adapter  # type: ignore[assignment]
        export(Path("memory"), adapter.adapted(adapter.matrices(), run))
        assert base_of(Path("memory")) == str(expected)


def test_an_embedded_base_has_a_whole_path(here: Path) -> None:
    model = model_of("tiny", LoraConfig(rank=2))
    export(Path("one"), model.files(Path("one")))
    assert Path(base_of(Path("one"))).is_absolute() and (Path(base_of(Path("one"))) / "config.json").is_file()


@pytest.mark.parametrize("case", CASES)
def test_no_other_file_of_an_export_names_a_folder(here: Path, case: str) -> None:
    from tests.reckoning.miniature import make_tokenizer

    make_tokenizer("a b c").save_pretrained("models/own")
    from common.language.sources import load_tokenizer

    model, folder = model_of(**CASES[case]), Path("runs/model")
    export(folder, model.files(folder), load_tokenizer(ModelConfig(name="models/own")))
    naming = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".json", ".md", ".txt")
        and ("models/own" in path.read_text() or str(here) in path.read_text())
    }
    assert naming <= {"adapter_config.json", "README.md"}, naming
