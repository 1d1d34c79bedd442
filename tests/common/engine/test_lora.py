"""Stacked LoRA against plain peft, one task after the other; ragged tasks; files; and the work that is not done."""

import copy
import itertools
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.engine.adapter import layers
from common.engine.inner import Adapted, adapt
from common.engine.lora import make_stackable
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.twice.processor import make_attention_twice
from common.engine.weights import Weights, call, select, stack, unstack
from common.errors import UserError
from tests.common.engine.unet import TEMPORAL, clip, video_rows, video_unet

logger = logging.getLogger(__name__)  # measured errors: pytest --log-cli-level=INFO
VOCABULARY, LENGTH = 13, 6
LORA = ["*lora_*"]
RULES: dict[str, tuple[UpdateRule, float]] = {"sgd": (SGD(0.01), 0.1), "adamw": (AdamW(), 0.01)}


def adapted(loss: Callable[[Weights], Tensor], start: Weights, rule: UpdateRule, rates: LearnedRates) -> Adapted:
    return adapt(lambda weights, _: loss(weights), start, steps=rates.steps, rule=rule, rates=rates)


def with_lora(base: nn.Module, **settings: Any) -> nn.Module:
    """Plain peft; random A and B, so that no gradient vanishes."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 2, "lora_alpha": 4, "init_lora_weights": False, **settings}
    return get_peft_model(base, LoraConfig(**settings), autocast_adapter_dtype=False).eval()


# ---- the networks; what each makes of a batch is one number a row


def gpt2_base(width: int = 8, rows: int = VOCABULARY) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=rows,
        n_embd=width,
        n_layer=2,
        n_head=2,
        n_positions=16,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config).eval().double()


def gpt2() -> nn.Module:
    """Its linear layers are transformers' Conv1D, which hold the transposed matrix."""
    return with_lora(gpt2_base(), target_modules="all-linear", fan_in_fan_out=True)


def qwen2() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return with_lora(Qwen2ForCausalLM(config).double(), target_modules="all-linear", r=4, use_rslora=True)


def convolutions() -> nn.Module:
    """Video in, video out: stride, padding, groups in the base, a kernel of size one, and a linear layer at the end."""
    layers = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1),
        nn.SiLU(),
        nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0), groups=2),
        nn.SiLU(),
        nn.Conv3d(4, 6, 1),
        nn.SiLU(),
        nn.Conv3d(6, 4, 2, stride=2),
        nn.SiLU(),
        nn.Linear(2, 3),
    )
    with warnings.catch_warnings(action="ignore"):  # groups: peft could not merge
        return with_lora(layers.double(), target_modules=["0", "2", "4", "6", "8"])


def images() -> nn.Module:
    """Convolutions over two axes and over one; kernels of size one that are no plain matrix product."""
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.SiLU(),
        nn.Flatten(2),
        nn.Conv1d(4, 4, 3, padding=1),
        nn.Conv1d(4, 4, 1, stride=2),
        nn.Conv1d(4, 2, 1, padding=1),
    )
    return with_lora(layers.double(), target_modules=["0", "3", "4", "5"])


def video() -> nn.Module:
    """LoRA on temporal attention (rows times pixels come first) and on temporal convolutions."""
    unet = make_attention_twice(video_unet())
    return with_lora(unet, target_modules=layers(unet, TEMPORAL))


def token_rows(network: nn.Module, weights: Weights, ids: Tensor) -> Tensor:
    """Next-token loss of every row; ids [rows, length] -> [rows]."""
    scores = call(network, weights, input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(scores.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


def plain_rows(network: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    return call(network, weights, x).square().flatten(1).mean(1)


def tokens(*shape: int) -> Tensor:
    return torch.randint(VOCABULARY, (*shape, LENGTH))


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, 2, 4, 4, dtype=torch.double)


@dataclass(frozen=True)
class Kind:
    make: Callable[[], nn.Module]
    data: Callable[..., Tensor]
    """(tasks, rows) -> [tasks, rows, ...]."""
    rows: Callable[[nn.Module, Weights, Tensor], Tensor]
    """[rows, ...] -> [rows]."""
    tolerance: float = 1e-8


KINDS = {
    "gpt2": Kind(gpt2, tokens, token_rows),
    "qwen2": Kind(
        qwen2, tokens, token_rows, tolerance=1e-5
    ),  # its norms and softmax are in float32 whatever the weights
    "convolutions": Kind(convolutions, clip, plain_rows),
    "images": Kind(images, image, plain_rows),
    "video": Kind(video, clip, video_rows, tolerance=1e-6),  # AdamW enlarges rounding where gradients are near eps
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def losses(kind: Kind, network: nn.Module, weights: Weights, data: Tensor) -> Tensor:
    """Of a stack: data [tasks, rows, ...] -> [tasks]."""
    return kind.rows(network, weights, data.flatten(0, 1)).view(data.shape[:2]).mean(1)


# ---- stacked equals one by one


def spread(start: Weights, tasks: int) -> Weights:
    """A stack whose tasks differ."""
    return {
        name: torch.stack([value + 0.1 * torch.randn_like(value) for _ in range(tasks)])
        for name, value in start.items()
    }


def test_a_stack_gives_every_task_what_plain_peft_gives_it_alone(kind: Kind) -> None:
    plain = kind.make()
    network = make_stackable(copy.deepcopy(plain))
    weights, data = spread(select(plain, LORA), 3), kind.data(3, 2)
    together = losses(kind, network, weights, data)
    for task in range(3):
        alone = kind.rows(plain, unstack(weights, task), data[task])
        torch.testing.assert_close(together[task], alone.mean(), rtol=kind.tolerance, atol=0)
        assert torch.equal(kind.rows(network, unstack(weights, task), data[task]), alone)
    assert not torch.allclose(together, losses(kind, network, weights, data.flip(0)).flip(0), rtol=1e-4)


@pytest.mark.parametrize(("tasks", "steps"), [(1, 2), (4, 3)])
@pytest.mark.parametrize("rule", RULES)
def test_inner_losses_and_the_meta_gradient_are_those_of_plain_peft_one_task_after_the_other(
    kind: Kind, rule: str, tasks: int, steps: int
) -> None:
    plain = kind.make()
    network = make_stackable(copy.deepcopy(plain))
    facts, questions = kind.data(tasks, 2), kind.data(tasks, 1)
    update, lr = RULES[rule]
    start = select(plain, LORA)
    rates = LearnedRates(list(start), steps=steps, start=lr).double()
    inputs = [*start.values(), rates.numbers]

    alone, alone_losses = [torch.zeros_like(x) for x in inputs], []
    for task in range(tasks):
        fast = adapted(lambda w, task=task: kind.rows(plain, w, facts[task]).mean(), start, update, rates)
        found = torch.autograd.grad(kind.rows(plain, fast.weights, questions[task]).mean(), inputs)
        alone = [total + new for total, new in zip(alone, found, strict=True)]
        alone_losses.append(torch.stack(fast.losses))

    ours = select(network, LORA)
    fast = adapted(lambda w: losses(kind, network, w, facts), stack(ours, tasks), update, rates)
    together = torch.autograd.grad(
        losses(kind, network, fast.weights, questions).sum(), [*ours.values(), rates.numbers]
    )
    torch.testing.assert_close(torch.stack(fast.losses, 1), torch.stack(alone_losses), rtol=kind.tolerance, atol=0)
    error = max((a - b).norm() / b.norm() for a, b in zip(together, alone, strict=True)).item()
    logger.info("relative error %.1e", error)
    assert error < kind.tolerance


def test_a_stack_of_one_side_only_leaves_the_other_shared() -> None:
    plain = gpt2()
    network, ids = make_stackable(copy.deepcopy(plain)), tokens(2, 2)
    weights = spread(select(plain, ["*lora_B*"]), 2)
    for task, together in enumerate(token_rows(network, weights, ids.flatten(0, 1)).view(2, 2)):
        torch.testing.assert_close(together, token_rows(plain, unstack(weights, task), ids[task]))


@pytest.mark.parametrize("unequal", ["rows", "lengths", "both"])
def test_ragged_tasks_are_padded_without_changing_a_number(unequal: str) -> None:
    """Absent rows and absent tokens have weight 0; in a row the padding stands at the right."""
    shapes = {
        "rows": [(3, 6), (1, 6), (2, 6)],
        "lengths": [(2, 6), (2, 4), (2, 3)],
        "both": [(1, 6), (3, 2), (2, 5)],
    }[unequal]
    plain = gpt2()
    network = make_stackable(copy.deepcopy(plain))
    facts = [torch.randint(VOCABULARY, shape) for shape in shapes]
    padded, count = torch.full((3, 3, LENGTH), 5), torch.zeros(3, 3, LENGTH - 1, dtype=torch.double)
    for task, (rows, length) in enumerate(shapes):
        padded[task, :rows, :length] = facts[task]
        count[task, :rows, : length - 1] = 1

    def padded_loss(weights: Weights) -> Tensor:
        scores = call(network, weights, input_ids=padded.flatten(0, 1), use_cache=False).logits[:, :-1]
        each = nn.functional.cross_entropy(scores.transpose(1, 2), padded[..., 1:].flatten(0, 1), reduction="none")
        return (each.view_as(count) * count).sum((1, 2)) / count.sum((1, 2))

    start = select(plain, LORA)
    rates = LearnedRates(list(start), steps=2, start=0.01).double()
    ours = select(network, LORA)
    fast = adapted(padded_loss, stack(ours, 3), AdamW(), rates)
    found = torch.autograd.grad(padded_loss(fast.weights).sum(), list(ours.values()))
    expected = [torch.zeros_like(value) for value in start.values()]
    for task, ids in enumerate(facts):
        alone = adapted(lambda w, ids=ids: token_rows(plain, w, ids).mean(), start, AdamW(), rates)
        new = torch.autograd.grad(token_rows(plain, alone.weights, ids).mean(), list(start.values()))
        expected = [total + value for total, value in zip(expected, new, strict=True)]
        torch.testing.assert_close([loss[task] for loss in fast.losses], alone.losses, rtol=1e-10, atol=0)
        for name, value in unstack(fast.weights, task).items():
            torch.testing.assert_close(value, alone.weights[name], rtol=1e-8, atol=1e-10)
    assert all((a - b).norm() < 1e-8 * b.norm() for a, b in zip(found, expected, strict=True))


# ---- what stays peft's own


def test_parameters_names_and_torch_classes_stay_and_a_second_call_changes_nothing() -> None:
    network = video()
    before, modules = dict(network.state_dict(keep_vars=True)), dict(network.named_modules())
    assert make_stackable(make_stackable(network)) is network
    after = dict(network.state_dict(keep_vars=True))
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert all(isinstance(module, type(modules[name])) for name, module in network.named_modules())


def test_dropout_draws_one_mask_over_the_whole_batch() -> None:
    plain = with_lora(gpt2_base(), target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.5).train()
    plain.base_model.model.transformer.drop.p = 0.0
    network, ids = make_stackable(copy.deepcopy(plain)), tokens(2, 2)
    start, results = select(plain, LORA), []
    for model, weights in ((plain, start), (network, stack(start, 2))):
        torch.manual_seed(1)
        results.append(token_rows(model, weights, ids.flatten(0, 1)))
    torch.testing.assert_close(*results)
    torch.manual_seed(2)
    assert not torch.allclose(token_rows(network, stack(start, 2), ids.flatten(0, 1)), results[1])


def test_a_base_of_low_precision_keeps_adapters_of_full_precision() -> None:
    plain = with_lora(gpt2_base().bfloat16(), target_modules="all-linear", fan_in_fan_out=True)
    for name, value in plain.named_parameters():
        if "lora_" in name:
            value.data = value.data.float()
    network, ids = make_stackable(copy.deepcopy(plain)), tokens(2, 2)
    weights = spread(select(plain, LORA), 2)
    result = call(network, weights, input_ids=ids.flatten(0, 1)).logits
    found = torch.autograd.grad(result.float().sum(), list(weights.values()))
    assert result.dtype == torch.bfloat16 and {value.dtype for value in (*weights.values(), *found)} == {torch.float32}
    for task, together in enumerate(result.unflatten(0, (2, 2))):
        alone = call(plain, unstack(weights, task), input_ids=ids[task]).logits
        torch.testing.assert_close(together, alone, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["gpt2", "convolutions", "video"])
def test_one_task_of_a_stack_is_an_adapter_folder_of_peft_and_the_folder_the_start_of_a_stack(
    name: str, tmp_path: Path
) -> None:
    from peft import PeftModel

    kind = KINDS[name]
    network = make_stackable(kind.make())
    base = copy.deepcopy(network).unload()
    weights, data = spread(select(network, LORA), 3), kind.data(3, 2)
    together = kind.rows(network, weights, data.flatten(0, 1)).view(3, 2)
    with warnings.catch_warnings(action="ignore"):  # groups: peft could not merge
        network.save_pretrained(tmp_path, state_dict=unstack(weights, 1))
        loaded = PeftModel.from_pretrained(base, tmp_path, is_trainable=True, autocast_adapter_dtype=False).eval()

    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    alone = kind.rows(loaded, {}, data[1])
    assert torch.equal(alone, kind.rows(network, unstack(weights, 1), data[1]))
    torch.testing.assert_close(alone, together[1])

    start = select(make_stackable(loaded), LORA)
    assert list(start) == list(weights) and all(torch.equal(start[key], weights[key][1]) for key in start)
    torch.testing.assert_close(kind.rows(loaded, stack(start, 3), data.flatten(0, 1)).view(3, 2)[1], alone)


# ---- refusals


def refused(network: nn.Module) -> str:
    before = [type(module) for module in network.modules()]
    with pytest.raises(UserError) as error:
        make_stackable(network)
    assert [type(module) for module in network.modules()] == before
    return str(error.value)


LAYER = "LoRA layer base_model.model.0 cannot be stacked over tasks: "


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"use_dora": True}, "it uses the variant DoraLinearVariant; use plain LoRA (use_dora=False and the like)"),
        ({"lora_bias": True}, "its B has a bias; use lora_bias=False"),
        ({"bias": "all"}, "the bias of its frozen base is trained; use bias='none'"),
        ({"bias": "lora_only"}, "the bias of its frozen base is trained; use bias='none'"),
    ],
)
def test_options_that_cannot_be_stacked_are_refused(settings: dict[str, Any], text: str) -> None:
    network = with_lora(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), target_modules=["0", "1"], **settings)
    assert refused(network) == LAYER + text


def test_layers_that_cannot_be_stacked_are_refused() -> None:
    class Scaled(nn.Conv2d):
        """A convolution with a forward pass of its own; peft makes A and B of the same class."""

    embedding = with_lora(nn.Sequential(nn.Embedding(3, 3)), target_modules=["0"])
    attention = with_lora(nn.Sequential(nn.MultiheadAttention(4, 2)), target_modules=["0"])
    special = with_lora(nn.Sequential(Scaled(3, 3, 1)), target_modules=["0"])
    assert refused(embedding) == LAYER + "it adapts an embedding; leave that out of target_modules"
    assert refused(attention) == LAYER + (
        "peft's peft.tuners.lora.layer.MultiheadAttention computes in its own way; "
        "use target_modules that are linear or convolution layers, not quantised"
    )
    assert refused(special) == LAYER + "its matrices are of type Scaled, after the base layer; use torch's own layers"
    assert refused(nn.Linear(2, 2)) == "Linear has no LoRA layer: attach one with peft.get_peft_model first"


def test_a_merged_adapter_is_refused_until_it_is_unmerged() -> None:
    network = with_lora(nn.Sequential(nn.Linear(3, 3)), target_modules=["0"])
    network.merge_adapter()
    assert refused(network) == LAYER + "its adapter is merged into the base weight; call unmerge_adapter() first"
    network.unmerge_adapter()
    make_stackable(network)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(4, 3), torch.zeros(5, 4)),
        (nn.Conv1d(4, 3, 1), torch.zeros(5, 4, 2)),
        (nn.Conv2d(4, 3, 3, padding=1), torch.zeros(5, 4, 2, 2)),
        (nn.Conv3d(4, 3, 1), torch.zeros(5, 4, 2, 2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_that_cannot_be_divided_among_the_tasks_are_refused(layer: nn.Module, x: Tensor) -> None:
    network = make_stackable(with_lora(nn.Sequential(layer), target_modules=["0"]))
    weights = stack(select(network, LORA), 2)
    shape = tuple(next(iter(weights.values())).shape)
    text = (
        f"LoRA weights {shape} are a stack for 2 tasks, so the input must be [2 * rows, ...], task after task; "
        f"it has the shape {tuple(x.shape)}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(network, weights, x)


# ---- the frozen base costs no weight gradient


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_a_lora_gradient_costs_two_thirds_of_that_of_all_weights() -> None:
    base, ids = gpt2_base(width=32, rows=32), torch.randint(32, (2, 3, LENGTH))
    everything = select(base)
    full = flops(
        lambda: torch.autograd.grad(token_rows(base, everything, ids.flatten(0, 1)).sum(), everything.values())
    )
    network = make_stackable(with_lora(copy.deepcopy(base), target_modules="all-linear", fan_in_fan_out=True, r=1))
    ours = select(network, LORA)
    lora = flops(
        lambda: torch.autograd.grad(token_rows(network, stack(ours, 2), ids.flatten(0, 1)).sum(), ours.values())
    )
    logger.info("share %.3f", lora / full)
    assert lora / full == pytest.approx(2 / 3, abs=0.07)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_gradient_and_hessian_vector_product_cost_what_counting_by_hand_gives(layers: int) -> None:
    """Layers W h + B A h of width d on n rows in all, rank r, nothing frozen ever differentiated.

    A product with W costs 2 n d d, one with A or B 2 n d r. Above the first layer W is used once forward, once in the
    gradient (to the layer below), and twice in the product: the two adjoints of these. (All weights fast: 1, 2 and 6.)
    A and B are used 2 times forward, 4 times in the gradient (to A, to B, to A h, to h) and 12 times in the product: 8
    adjoints of these four, 4 of the forward two. The first layer's input asks for no gradient: there W is used forward
    alone, and A and B 2, 3 and 8 times.
    """
    from peft import LoraConfig, inject_adapter_in_model

    tasks, rows, d, r = 2, 5, 16, 3
    n = tasks * rows
    chain = nn.Sequential(*itertools.chain(*((nn.Linear(d, d, bias=False), nn.Tanh()) for _ in range(layers)))).double()
    config = LoraConfig(r=r, target_modules=[str(2 * layer) for layer in range(layers)], init_lora_weights=False)
    network = make_stackable(inject_adapter_in_model(config, chain))
    start = stack(select(network, LORA), tasks)
    x = torch.randn(n, d, dtype=torch.double)

    def gradient() -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(network, start, x).square().sum(), list(start.values()), create_graph=True)

    def product() -> None:
        direction = sum((g * g.detach()).sum() for g in gradient())
        torch.autograd.grad(direction, list(start.values()))

    wide, narrow, above = 2 * n * d * d, 2 * n * d * r, layers - 1
    assert flops(gradient) == above * (2 * wide + 6 * narrow) + wide + 5 * narrow
    assert flops(product) == above * (4 * wide + 18 * narrow) + wide + 13 * narrow
    assert all(value.grad is None for value in network.parameters())
