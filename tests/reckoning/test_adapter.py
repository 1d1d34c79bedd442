"""LoRA as the fast weights: exact meta-gradients, stacks, what is frozen, checkpoints, and files that peft reads."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from common.engine.lora import takes_stacks
from common.engine.rates import make_rates
from common.engine.settings import InnerConfig, RuleName, Unroll
from common.engine.twice.lean import make_lean
from common.errors import UserError
from common.language import model
from common.language.adapter import Adapter, fast_weights
from common.language.config import LoraConfig
from common.language.model import LanguageModel
from common.language.objective import logits
from common.run import checkpoint
from common.run.schema import to_typed
from reckoning import evaluate
from reckoning import model as sizes
from reckoning.config import Knowledge, Learner, MethodConfig, TemplateConfig, TrainConfig
from reckoning.methods import GivenKnowledge, InContext, Reckoning
from reckoning.problems import Problem
from reckoning.templates import Templates
from tests.learners import losses_of
from tests.reckoning.miniature import make_network
from tests.runs import only_run, run_here

WORDS = {"true": "yes", "false": "no", "unknown": "none"}
LORA = ["model.lora.rank=2", "model.lora.alpha=4", "model.lora.targets=[c_attn,c_fc]"]
PARTS = {"adapter": (["*lora_*"], []), "with embeddings": (["*"], ["transformer.wte.*"])}
"""Fast weights, and what learns besides the adapter."""
Splits = Callable[[str], list[Problem]]


def learner_of(
    tokenizer: Any, kind: Learner = Learner.reckoning, parts: str = "adapter", dropout: float = 0.0, **inner: Any
) -> Any:
    """A learner around a float64 model with LoRA; the same weights every time, none of them zero."""
    weights, train = PARTS[parts]
    network = make_network(len(tokenizer)).double()
    adapter = Adapter(
        network,
        LoraConfig(rank=2, alpha=4, dropout=dropout, targets=["c_attn", "c_fc"], train=train),
        base_has_files=True,
    )
    make_lean(network)
    adapter.make_stackable()
    rng = random.Random(1)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            values = [rng.gauss(0, 0.1) for _ in range(parameter.numel())]
            parameter.data.copy_(torch.tensor(values).view_as(parameter))
    language_model = LanguageModel(network, 64, adapter)
    templates = Templates(TemplateConfig(), WORDS, tokenizer, 64)
    method, knowledge = MethodConfig(learner=kind), GivenKnowledge(Knowledge.given, {}, seed=0)
    if kind is Learner.in_context:
        return InContext(language_model, templates, method, knowledge)
    config = InnerConfig(**{"steps": 2, "lr": 0.01, "weights": weights, **inner})
    rates = make_rates(config, list(fast_weights(network, weights))).double()
    return Reckoning(language_model, rates, templates, config, method, knowledge)


def learners(learner: Any) -> dict[str, Tensor]:
    """Every number that the outer loop trains."""
    named = {name: w for name, w in learner.model.network.named_parameters() if w.requires_grad}
    return {**named, "rates": learner.writer.rates.numbers} if hasattr(learner, "writer") else named


def outer_gradient(learner: Any, batch: list[Problem]) -> tuple[float, dict[str, Tensor]]:
    total = 0.0
    for loss in losses_of(learner, batch):
        loss.backward()
        total += loss.item()
    return total, {name: w.grad.clone() for name, w in learners(learner).items()}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient.ne(0).any(), name
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("rule", [RuleName.adamw, RuleName.sgd])
def test_the_meta_gradient_is_that_of_central_differences(
    tokenizer: Any, problems: Splits, rule: RuleName, stack: bool, parts: str
) -> None:
    batch = problems("train")[:2]
    learner = learner_of(tokenizer, parts=parts, rule=rule, stack=stack, eps=0.1)  # smooth near gradient 0
    _, gradient = outer_gradient(learner, batch)
    draw = torch.Generator().manual_seed(0)
    for chosen in ("lora_A", "lora_B", "wte", "rates"):
        named = {name: w for name, w in learners(learner).items() if chosen in name}
        if not named:
            assert chosen == "wte" and parts == "adapter"
            continue
        direction = {n: torch.randn(w.shape, generator=draw, dtype=torch.double) for n, w in named.items()}
        size = 1e-6 if chosen == "rates" else 1e-5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, w in named.items():
                    w.add_(direction[name], alpha=sign * size)
            ends.append(sum(loss.item() for loss in losses_of(learner, batch)))
            with torch.no_grad():
                for name, w in named.items():
                    w.sub_(direction[name], alpha=sign * size)
        slope = sum((gradient[name] * d).sum().item() for name, d in direction.items())
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-5), chosen


@pytest.mark.parametrize("parts", PARTS)
def test_stacked_equals_one_by_one_for_problems_of_different_sizes(
    tokenizer: Any, problems: Splits, parts: str
) -> None:
    a, b, c = problems("train")[:3]
    b = Problem(b.id, b.theory, b.facts[:2], (), (type(b.questions[0])("q", "Bob is red", "true", (1,)),))
    batch = [a, b, Problem(c.id, c.theory, c.facts, (), c.questions[1:])]
    singly, stacked = (learner_of(tokenizer, parts=parts, stack=stack) for stack in (False, True))
    assert takes_stacks(stacked.model.network, stacked.writer.slow) is (parts == "adapter"), "or by vmap"
    one, many = outer_gradient(singly, batch), outer_gradient(stacked, batch)
    assert one[0] == pytest.approx(many[0], rel=1e-11)
    assert_close(many[1], one[1], 1e-9)
    assert singly.respond(batch, 6) == stacked.respond(batch, 6)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("how", [{}, {"micro_batch": 1}, {"keep": 1}], ids=["", "micro-batches", "one step kept"])
def test_rebuilt_steps_give_the_gradient_of_stored_ones(
    tokenizer: Any, problems: Splits, how: dict[str, Any], stack: bool, parts: str
) -> None:
    batch = problems("train")[:2]
    stored = outer_gradient(learner_of(tokenizer, parts=parts, stack=stack), batch)
    found = outer_gradient(learner_of(tokenizer, parts=parts, stack=stack, unroll=Unroll.recompute, **how), batch)
    assert found[0] == pytest.approx(stored[0], rel=1e-11)
    assert_close(found[1], stored[1], 1e-9)


@pytest.mark.parametrize("kind", [Learner.reckoning, Learner.in_context])
def test_the_base_is_frozen_and_everything_else_learns(tokenizer: Any, problems: Splits, kind: Learner) -> None:
    learner = learner_of(tokenizer, kind, "with embeddings")
    outer_gradient(learner, problems("train")[:2])
    for name, w in learner.model.network.named_parameters():
        learns = "lora_" in name or "wte" in name
        assert w.requires_grad is learns and (w.grad is not None) is learns, name


def test_adapter_dropout_acts_in_training_only(tokenizer: Any, problems: Splits) -> None:
    for stack in (False, True):
        learner = learner_of(tokenizer, dropout=0.5, stack=stack)
        batch = problems("train")[:2]
        for mode in (True, False):
            learner.model.network.train(mode)
            first, second = (sum(loss.item() for loss in losses_of(learner, batch)) for _ in range(2))
            assert (first != second) is mode


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(["*wpe*"], "all of these are frozen by model.lora"), (["*nothing*"], "inner.weights: the pattern '\\*nothing")],
)
def test_fast_weights_must_learn(tokenizer: Any, patterns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fast_weights(learner_of(tokenizer).model.network, patterns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["c_attn"]}, "model.lora.rank=0: LoRA is off"),
        ({"rank": -1}, "use a rank of 0 \\(off\\) or more"),
        ({"rank": 1, "alpha": 0}, "positive alpha"),
        ({"rank": 1, "dropout": 1.0}, "model.lora.dropout=1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoraConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["query"]}, "model.lora.targets=\\['query'\\]"),
        ({"train": ["*.wide.*"]}, "model.lora.train: the pattern '\\*.wide.\\*' matches no parameter"),
    ],
)
def test_layers_that_are_not_there_are_named(tokenizer: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Adapter(make_network(len(tokenizer)), LoraConfig(rank=1, **settings), base_has_files=True)


# ---- the command line


@pytest.fixture(scope="module", params=["read", "random", "with embeddings"])
def run(mini: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A finished run, on a base read from files and frozen, on a random one, or on one that is trained in part."""
    words = {"random": ["model.pretrained=false"], "with embeddings": ["model.lora.train=['*.wte.*']"]}
    root = tmp_path_factory.mktemp("lora")
    assert mini.train(root, *LORA, "loop.save_every=1", "loop.keep=9", *words.get(request.param, [])) == 0
    return only_run(root)


def test_a_checkpoint_holds_what_cannot_be_read_again(run: Path) -> None:
    kept = load_file(run / "checkpoints" / "step-000004" / "model.safetensors")
    name = run.name
    learned = {key for key in kept if "lora_" in key}
    assert len(learned) == 2 * 2 * 2, "A and B of two layers in each of two blocks"
    if "pretrained-false" in name:
        assert "transformer.h.0.attn.c_attn.base_layer.weight" in kept
    else:
        others = {key for key in kept if key not in learned}
        assert others == ({"transformer.wte.weight", "lm_head.weight"} & others if "lora.train" in name else set())
    before = load_file(run / "checkpoints" / "step-000001" / "model.safetensors")
    assert all(not torch.equal(before[key], kept[key]) for key in learned)


def test_peft_alone_reads_the_export(run: Path, mini: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = to_typed(OmegaConf.load(run / "config.yaml"), TrainConfig)
    torch.manual_seed(0)
    ours = model.load(config.model, 10, device=torch.device("cpu"), dtype=torch.float32)
    best = checkpoint.latest(run / "checkpoints").run["best"]["step"]  # type: ignore[union-attr]
    ours.tracked.load_state_dict(checkpoint.load(run / "checkpoints" / checkpoint.name_of(int(best))).objects["model"])
    ours.network.eval()
    own_base = (run / "model" / "base").is_dir()
    assert own_base is any(word in run.name for word in ("pretrained-false", "lora.train"))
    base = AutoModelForCausalLM.from_pretrained(run / "model" / "base" if own_base else mini.folder / "model")
    ids = torch.arange(12)[None]
    plain = base(ids).logits
    theirs = PeftModel.from_pretrained(base, run / "model").eval()
    found = AutoModelForCausalLM.from_pretrained(run / "model").eval()
    with torch.no_grad():
        expected = logits(ours.network, {}, ids)
        torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-4)


def test_a_continued_run_ends_in_the_same_bits(run: Path, mini: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / run.name))
    for name in ("FINISHED", "results.json", "predictions.jsonl", "model"):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    for step in (3, 4):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:06d}")
    more = [w for w in ("model.pretrained=false", "model.lora.train=['*.wte.*']") if w.split("=")[0] in run.name]
    words = [*LORA, "loop.save_every=1", "loop.keep=9", *more, f"hydra.run.dir='{folder}'"]
    assert mini.train(tmp_path, *words) == 0
    for path in run.rglob("*.safetensors"):
        assert path.read_bytes() == (folder / path.relative_to(run)).read_bytes(), path.name
    assert (folder / "predictions.jsonl").read_bytes() == (run / "predictions.jsonl").read_bytes()


def test_evaluation_finds_the_runs_own_results(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / run.name))
    assert run_here(evaluate.main, f"run={folder}") == 0
    found = json.loads((folder / "evaluation-test.json").read_text())
    assert found == json.loads((folder / "results.json").read_text())["test"]


@pytest.mark.parametrize("stack", ["true", "false"])
def test_model_tells_what_learns_and_what_is_frozen(
    mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], stack: str
) -> None:
    words = mini.words(tmp_path, *LORA, "inner.weights=['*lora_*']", "model.lora.train=['*.wpe.*']")
    assert run_here(sizes.main, *words, f"inner.stack={stack}") == 0
    out = capsys.readouterr().out
    adapter = 2 * (2 * (16 + 48) + 2 * (16 + 64))
    for part in (
        f"{adapter:,} in 8 tensors: LoRA of rank 2, alpha 4, dropout 0.1 on c_attn, c_fc",
        f"{adapter + 64 * 16:,} in 9 tensors: the adapter and model.lora.train=['*.wpe.*']",
        f"{adapter:,} in 8 tensors, inner.weights=['*lora_*']",
        "16: one a tensor and step",
    ):
        assert part in out, out
    frozen = next(line for line in out.splitlines() if line.startswith("frozen"))
    total = next(line for line in out.splitlines() if line.startswith("parameters"))
    count = lambda line: int(line.split()[1].replace(",", ""))  # noqa: E731
    assert count(frozen) + adapter + 64 * 16 == count(total)
