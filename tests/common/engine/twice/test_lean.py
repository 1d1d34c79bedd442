"""Lean pieces put into networks of `transformers`: the same function, the same parameters, nothing else touched."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from common.engine.twice import policy
from common.engine.twice.activation import GELU, SiLU
from common.engine.twice.lean import make_lean
from common.engine.twice.linear import Linear
from common.engine.twice.norm import LayerNorm, RMSNorm

VOCABULARY = 13


@pytest.fixture(autouse=True)
def every_tensor_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SMALL", 0)


def network(kind: str) -> nn.Module:
    import transformers as hf

    torch.manual_seed(0)
    size = dict(
        vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, attn_implementation="eager", initializer_range=0.3
    )
    if kind == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=8, **size)).double().eval()
    small = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, **size)
    if kind == "gpt_neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(max_position_embeddings=8, **small)).double().eval()
    small |= dict(num_key_value_heads=1, pad_token_id=0)
    if kind == "gemma2":
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(head_dim=4, **small)).double().eval()
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**small)).double().eval()


def loss_gradient_and_product(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """The loss, its gradient, and its Hessian times a fixed vector."""
    parameters = list(model.parameters())
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    first = torch.autograd.grad(loss, parameters, create_graph=True)
    product = torch.autograd.grad(first, parameters, [torch.ones_like(p) for p in parameters])
    return [loss, *first, *product]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("gpt2", {GELU: 2, LayerNorm: 5, Linear: 1}),
        ("gpt_neox", {GELU: 2, LayerNorm: 5, Linear: 9}),
        ("qwen2", {SiLU: 2, RMSNorm: 5, Linear: 15}),
    ],
)
def test_a_lean_model_is_the_same_function(
    kind: str, expected: dict[type[nn.Module], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    def in_float64(self: Qwen2RMSNorm, hidden_states: Tensor) -> Tensor:
        return nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)

    monkeypatch.setattr(Qwen2RMSNorm, "forward", in_float64)  # its own rounds float64 to float32
    model, ids = network(kind), torch.randint(VOCABULARY, (2, 6))
    before, parameters = loss_gradient_and_product(model, ids), dict(model.named_parameters())
    assert make_lean(model) is model
    after = dict(model.named_parameters())
    assert list(after) == list(parameters) and all(after[name] is parameters[name] for name in after)
    assert {kind: sum(type(m) is kind for m in model.modules()) for kind in expected} == expected
    torch.testing.assert_close(loss_gradient_and_product(model, ids), before, rtol=1e-10, atol=1e-10)


def test_a_network_without_data_becomes_lean_too() -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    with FakeTensorMode():
        found = make_lean(nn.Sequential(Qwen2RMSNorm(8), GemmaRMSNorm(8)))
    assert [type(module) for module in found.children()] == [RMSNorm, GemmaRMSNorm]


def test_the_norm_of_qwen_in_float32_is_the_same_to_rounding() -> None:
    model, ids = network("qwen2").float(), torch.randint(VOCABULARY, (2, 6))
    before = loss_gradient_and_product(model, ids)
    torch.testing.assert_close(loss_gradient_and_product(make_lean(model), ids), before, rtol=1e-4, atol=1e-4)


def test_what_only_looks_alike_is_left_alone() -> None:
    from transformers.activations import ACT2FN

    kept = [ACT2FN["quick_gelu"], ACT2FN["gelu_10"], nn.LayerNorm(4, elementwise_affine=False), nn.LayerNorm([2, 2])]
    model = nn.Sequential(*kept)
    assert list(make_lean(model)) == kept
    gemma = network("gemma2")  # its RMS norm scales by 1 + weight, its GELU is the usual one
    make_lean(gemma)
    assert [sum(type(m) is kind for m in gemma.modules()) for kind in (RMSNorm, GELU)] == [0, 2]


@pytest.mark.parametrize("name", ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"])
def test_every_gelu_of_transformers_keeps_its_function(name: str) -> None:
    from transformers.activations import ACT2FN

    x = 3 * torch.randn(2, 5, 6, dtype=torch.float64)
    lean = make_lean(nn.Sequential(ACT2FN[name]))
    assert type(lean[0]) is GELU
    torch.testing.assert_close(lean(x), ACT2FN[name](x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "qwen2"])
def test_hooks_of_before_and_after_fire_and_attributes_stay(kind: str) -> None:
    model, ids = network(kind), torch.randint(VOCABULARY, (2, 6))
    fired: list[str] = []

    def listen(when: str) -> None:
        for name, module in model.named_modules():
            module.register_forward_hook(lambda *_, at=f"{when} {name}": fired.append(at))
            module.register_forward_pre_hook(lambda *_, at=f"pre {when} {name}": fired.append(at))

    def heard() -> list[str]:
        fired.clear()
        model(input_ids=ids, use_cache=False)
        return sorted(fired)

    modules, attributes = list(model.modules()), [set(vars(module)) for module in model.modules()]
    listen("early")
    plain = heard()
    make_lean(model)
    assert heard() == plain
    listen("late")
    late = [at for at in heard() if "late" in at]
    assert late == [at.replace("early", "late") for at in plain]
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(before <= set(vars(module)) for before, module in zip(attributes, modules, strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
@pytest.mark.parametrize("way", ["pickle", "save", "deepcopy"])
def test_a_lean_model_is_copied_and_read_again_as_a_lean_one(kind: str, way: str) -> None:
    model, ids, again = make_lean(network(kind)), torch.randint(VOCABULARY, (2, 6)), io.BytesIO()
    if way == "save":
        torch.save(model, again)
        again.seek(0)
        copied: Any = torch.load(again, weights_only=False)
    else:
        copied = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert [type(module) for module in copied.modules()] == [type(module) for module in model.modules()]
    torch.testing.assert_close(loss_gradient_and_product(copied, ids), loss_gradient_and_product(model, ids))
    plain = network(kind)
    plain.load_state_dict(model.state_dict())
    assert list(plain.state_dict()) == list(model.state_dict())


def test_another_process_reads_a_pickled_lean_gpt2(tmp_path: Path) -> None:
    model = make_lean(network("gpt2"))
    torch.save(model, tmp_path / "model.pt")
    code = "import sys, torch; print(type(torch.load(sys.argv[1], weights_only=False).transformer.h[0].attn.c_attn))"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt")], capture_output=True, text=True)
    assert said.stdout == "<class 'common.engine.twice.lean.Conv1D'>\n", said.stderr


def test_shared_modules_the_network_itself_and_subclasses() -> None:
    class Own(nn.GELU):
        def forward(self, x: Tensor) -> Tensor:
            return x

    shared = nn.GELU("tanh")
    model = make_lean(nn.Sequential(shared, nn.Linear(2, 2), shared, Own(), nn.SiLU(inplace=True)))
    assert [type(module) for module in model] == [GELU, Linear, GELU, Own, SiLU] and model[0] is model[2] is shared
    assert shared.approximate == "tanh" and type(make_lean(nn.LayerNorm(3))) is LayerNorm
