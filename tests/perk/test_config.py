"""Settings of PERK's own: positions and YaRN, the adapter, methods, and which inner steps are kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.engine.settings import Unroll
from common.errors import UserError
from common.language.model import LanguageModel, load
from perk.apis.config import ApisConfig, Position
from perk.babilong.config import BabilongConfig, Placement
from perk.config import AdapterConfig, EvaluationConfig, Learner, MethodConfig, ModelConfig, kept_steps
from perk.variants import with_length, with_position
from tests.perk.miniature import WINDOW, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qwen2"), "qwen2")


def model_of(
    folder: Path, *, name: str | None = None, lora: AdapterConfig | None = None, **settings: Any
) -> LanguageModel:
    torch.manual_seed(0)
    adapter = lora or AdapterConfig(rank=2)
    config = ModelConfig(name=name or str(folder), pretrained=False, lora=adapter, **settings)
    return load(config, 100, device=torch.device("cpu"), dtype=torch.float32)


# ---- positions


def test_positions_are_the_models_own_until_told(folder: Path) -> None:
    assert model_of(folder).window == WINDOW
    assert model_of(folder, positions=4 * WINDOW).window == 4 * WINDOW
    assert model_of(folder, yarn=4.0).window == 4 * WINDOW
    assert model_of(folder, yarn=4.0, positions=100).window == 100


def test_more_positions_change_no_number_within_the_old_ones(folder: Path) -> None:
    plain, more = model_of(folder), model_of(folder, positions=4 * WINDOW)
    ids = torch.randint(100, (1, WINDOW))
    torch.testing.assert_close(more.network(input_ids=ids).logits, plain.network(input_ids=ids).logits)
    beyond = more.network(input_ids=torch.randint(100, (1, 2 * WINDOW))).logits
    assert beyond.shape[1] == 2 * WINDOW and beyond.isfinite().all()


def test_yarn_is_that_of_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, Qwen2Config

    ours = model_of(folder, yarn=4.0)
    settings = Qwen2Config.from_pretrained(folder)
    settings.rope_parameters = {
        "rope_type": "yarn", "rope_theta": settings.rope_parameters["rope_theta"], "factor": 4.0,
        "original_max_position_embeddings": WINDOW,
    }  # fmt: skip
    settings.max_position_embeddings = 4 * WINDOW
    theirs = AutoModelForCausalLM.from_config(settings, attn_implementation="eager")
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in ours.network.state_dict().items()
        if "lora_" not in name
    }
    theirs.load_state_dict(state)
    ids = torch.randint(100, (1, 2 * WINDOW))
    found, expected = ours.network(input_ids=ids).logits, theirs.eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = model_of(folder, positions=4 * WINDOW).network(input_ids=ids).logits
    assert (plain - found).abs().max() > 1e-2, "rotations are stretched"


@pytest.mark.parametrize("settings", [{"positions": 128}, {"yarn": 2.0}])
def test_a_model_without_rotary_positions_refuses_both(tmp_path: Path, settings: dict[str, Any]) -> None:
    gpt2 = write_model(tmp_path, "gpt2")
    assert model_of(gpt2).window == WINDOW
    with pytest.raises(UserError, match=r"model.positions=\d+, model.yarn=[0-9.]+: .* has no rotary positions; use 0"):
        model_of(gpt2, **settings)


@pytest.mark.parametrize(
    "settings", [{"positions": -1}, {"yarn": 0.5}, {"yarn": -2.0}, {"yarn": math.nan}, {"yarn": math.inf}]
)
def test_positions_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="model.positions=.*model.yarn=.*use 0"):
        ModelConfig(**settings)


# ---- the adapter


def test_the_adapter_is_the_papers(folder: Path) -> None:
    """All linear layers but the head, rank-stabilised."""
    network = model_of(folder, lora=AdapterConfig(rank=4, alpha=16)).network
    adapted = {name.partition(".lora_A")[0] for name, p in network.named_parameters() if "lora_A" in name}
    modules = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    assert adapted == {
        f"model.layers.{layer}.{part}.{name}" for layer in (0, 1) for part, names in modules.items() for name in names
    }
    layer: Any = network.get_submodule("model.layers.1.mlp.up_proj")
    assert layer.scaling["default"] == 16 / 4**0.5
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    plain = model_of(folder, lora=AdapterConfig(rank=4, alpha=16, stabilised=False)).network
    assert plain.get_submodule("model.layers.1.mlp.up_proj").scaling["default"] == 4.0  # type: ignore[index, union-attr]


@pytest.mark.parametrize("targets", [["all-linear"], ["up_proj", "q_proj"]], ids=str)
def test_only_the_top_layers_may_be_adapted(folder: Path, targets: list[str]) -> None:
    def adapted(top: int) -> set[str]:
        network = model_of(folder, lora=AdapterConfig(rank=2, top_layers=top, targets=targets)).network
        return {name for name, p in network.named_parameters() if p.requires_grad}

    assert adapted(2) == adapted(0)
    assert adapted(1) == {name for name in adapted(0) if name.startswith("model.layers.1.")}
    assert len(adapted(1)) == len(adapted(0)) // 2 > 0
    for wrong in (3, -1):
        with pytest.raises(
            UserError, match=rf"^model.lora.top_layers={wrong}: use 0 \(all\) to 2, which the model has"
        ):
            model_of(folder, lora=AdapterConfig(rank=2, top_layers=wrong))


def test_the_start_of_the_adapter_is_peft_s_or_a_named_one(folder: Path) -> None:
    def start(init: str) -> tuple[torch.Tensor, torch.Tensor]:
        network = model_of(folder, lora=AdapterConfig(rank=2, init=init)).network
        layer = "model.layers.0.mlp.up_proj"
        return tuple(network.get_parameter(f"{layer}.lora_{part}.default.weight") for part in "AB")  # type: ignore[return-value]

    (a, b), (other, zero), (_, random) = start("default"), start("gaussian"), start("orthogonal")
    assert a.any() and not b.any() and not torch.equal(a, other) and not zero.any() and random.any()
    with pytest.raises(UserError, match="^model.lora.init=pissa: use one of default, gaussian, orthogonal"):
        AdapterConfig(init="pissa")


@pytest.mark.parametrize("top", [0, 1])
@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (["w_q"], "(Target modules .*w_q.* not found|No modules were targeted)"),
        (["q_proj", "w_q"], "no layer's name ends in w_q"),
        (["q_proj", "all-linear"], "no layer's name ends in all-linear"),
        (["input_layernorm"], "Target module .* is not supported"),
    ],
    ids=str,
)
def test_unknown_layers_are_refused(folder: Path, targets: list[str], reason: str, top: int) -> None:
    text = rf"^model.lora.targets=\[{', '.join(map(repr, targets))}\]: {reason}.*; give the ends of the names of linear"
    with pytest.raises(UserError, match=text):
        model_of(folder, lora=AdapterConfig(rank=2, targets=targets, top_layers=top))


# ---- methods and evaluation


@pytest.mark.parametrize(("length", "kept"), [(1024, 2), (4096, 2), (4097, 1), (8192, 1), (131072, 1)])
def test_two_steps_are_kept_up_to_4k_tokens_and_one_beyond(
    composed: Callable[..., Any], length: int, kept: int
) -> None:
    assert kept_steps(length, 1) == kept_steps(32 * length, 32) == kept
    config = composed("+experiment=babilong_qa1", "scale=cpu", "data.shrink=1", f"data.length={length}")
    assert (config.inner.unroll, config.inner.keep) == (Unroll.tgu, kept)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segments": -1}, "method.segments=-1: use 0"),
        ({"segments": 3}, "method.segments=3 with method.learner=perk"),
        ({"learner": Learner.in_context, "meta": False}, "method.meta=false with method.learner=in_context"),
    ],
)
def test_impossible_methods_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MethodConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_problems": 0}, "evaluation.batch_problems=0: use 1 or more"),
        ({"micro_batch": -1}, "evaluation.micro_batch=-1: use 0 or more"),
        ({"lengths": [1024, 8]}, r"evaluation.lengths=\[1024, 8\]: use 16 tokens or more"),
        ({"confidence": 1.0}, "evaluation.confidence=1.0: it is a probability"),
    ],
)
def test_impossible_evaluations_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluationConfig(**settings)


def test_only_the_split_that_is_asked_changes_length_and_position(small: Callable[..., Any]) -> None:
    from perk import data

    config = small("babilong_qa1", "data.count={train:6,dev:4,test:3}")
    own = data.load(config)
    longer = with_length(config, "test", 4096)
    assert (longer.length, longer.test_length, longer.count) == (256, 4096, {"train": 1, "dev": 1, "test": 3})
    assert data.load(longer)["train"][0] == own["train"][0]
    assert data.load(longer)["test"][2].tokens > 1.8 * own["test"][2].tokens
    dev = with_length(config, "dev", 4096)
    assert (dev.length, dev.test_length, dev.count["dev"]) == (4096, 0, 4)
    for split in ("dev", "test"):
        moved = data.load(with_position(config, split, "pre"))[split]
        assert len(moved) == config.count[split]
        assert all(max(question.gold) <= 1 for problem in moved for question in problem.questions)
        assert moved[0].questions[0].text == own[split][0].questions[0].text
    apis = small("api_retrieval")
    for split in ("dev", "test"):
        (gold,) = data.load(with_position(apis, split, "post"))[split][1].questions[0].gold
        assert gold == len(data.load(with_position(apis, split, "post"))[split][1].segments) - 1


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("babilong_qa1", "evaluation.positions: nowhere is none of scattered, grouped, pre, mid, post"),
        ("api_retrieval", "evaluation.positions: nowhere is none of pre, mid, post, rnd"),
        ("hotpotqa", r"evaluation.positions=\[nowhere\]: documents have no positions; use \[\]"),
    ],
)
def test_a_position_that_a_task_does_not_have_is_refused(
    small: Callable[..., Any], experiment: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        with_position(small(experiment), "test", "nowhere")


@pytest.mark.parametrize(("length", "problems"), [(1024, 8), (4096, 8), (8192, 4), (16384, 2), (65536, 1)])
def test_batches_at_scale_cpu_have_about_equal_tokens(composed: Callable[..., Any], length: int, problems: int) -> None:
    config = composed("+experiment=babilong_qa1", "scale=cpu", f"data.length={length}")
    assert (config.outer.batch_problems, config.inner.keep) == (problems, 2)


@pytest.mark.parametrize("task", [1, 2, 3])
def test_stories_at_scale_cpu_are_short(composed: Callable[..., Any], task: int) -> None:
    from perk import data

    words = ["scale=cpu", "data.count={train:20,dev:1,test:1}", "data.cache=null"]
    config = composed(f"+experiment=babilong_qa{task}", *words).data
    low, high = config.babilong.world.facts
    counts = [sum("Event" in part for part in " ".join(p.segments).split(".")) for p in data.load(config)["train"]]
    assert low <= min(counts) and max(counts) <= high and config.babilong.task == task


def test_the_test_split_alone_has_the_other_position() -> None:
    apis = ApisConfig(position=Position.pre)
    worlds = BabilongConfig(placement=Placement.pre)
    for split in ("train", "dev", "test"):
        assert (apis.position_of(split), worlds.placement_of(split)) == (Position.pre, Placement.pre)
    apis.test_position, worlds.test_placement = Position.post, Placement.mid
    assert [apis.position_of(split).value for split in ("train", "dev", "test")] == ["pre", "pre", "post"]
    assert [worlds.placement_of(split).value for split in ("train", "dev", "test")] == ["pre", "pre", "mid"]
