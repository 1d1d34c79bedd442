"""Chunked token losses against torch's own, to the second derivative; what they cost; and the models they fit."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from common.engine.twice.policy import Need, needing
from common.engine.weights import select, stack
from common.language import cross_entropy
from common.language.cross_entropy import token_losses
from common.language.token_losses import TokenLosses

TOKENS, WIDTH, VOCABULARY = 7, 5, 11
Loss = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def every_vocabulary_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "SMALL_VOCABULARY", 0)


def plain(hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = nn.functional.linear(hidden, head, bias)
    return nn.functional.cross_entropy(logits, targets, reduction="none")


def problem(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, head, targets, bias"""
    hidden, head, bias = (torch.randn(*shape) for shape in ((TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)))
    tensors = [(scale * x).to(dtype).requires_grad_() for x in (hidden, head, bias)]
    return tensors[0], tensors[1], torch.randint(VOCABULARY, (TOKENS,)), tensors[2]


def derivatives(loss: Loss, variables: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Losses, their gradients, and the gradients of a fixed function of those; also for the cotangent `weight`."""
    losses = loss()
    first = torch.autograd.grad(losses, variables, weight, create_graph=True)
    second = torch.autograd.grad(sum((g * g.detach().cos()).sum() for g in first), [*variables, weight])
    return [losses, *first, *second]


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("variable", ["hidden", "head", "both"])
def test_equals_the_plain_losses_to_the_second_derivative(chunk: int, biased: bool, variable: str) -> None:
    hidden, head, targets, bias = problem()
    given = bias if biased else None
    head.requires_grad_(variable != "hidden")
    hidden.requires_grad_(variable != "head")
    variables = [x for x in (hidden, head, given) if x is not None and x.requires_grad]
    weight = torch.randn(TOKENS, dtype=torch.float64, requires_grad=True)
    ours = derivatives(lambda: token_losses(hidden, head, targets, given, chunk), variables, weight)
    expected = derivatives(lambda: plain(hidden, head, targets, given), variables, weight)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


def test_only_some_gradients_are_differentiated_again() -> None:
    hidden, head, targets, bias = problem()
    for chosen in ([hidden], [head], [bias], [hidden, bias]):
        found = []
        for losses in (token_losses(hidden, head, targets, bias, 3), plain(hidden, head, targets, bias)):
            first = torch.autograd.grad(losses.sum(), chosen, create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), [hidden, head, bias]))
        torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)


def test_derivatives_against_differences() -> None:
    hidden, head, targets, bias = problem()

    def losses(hidden: Tensor, head: Tensor, bias: Tensor) -> Tensor:
        return token_losses(hidden, head, targets, bias, 3)

    assert torch.autograd.gradcheck(losses, (hidden, head, bias))
    assert torch.autograd.gradgradcheck(losses, (hidden, head, bias))


def test_large_logits_stay_finite() -> None:
    hidden, head, targets, bias = problem(scale=100.0)
    weight = torch.ones(TOKENS, dtype=torch.float64, requires_grad=True)
    variables = [hidden, head, bias]
    ours = derivatives(lambda: token_losses(hidden, head, targets, bias, 3), variables, weight)
    expected = derivatives(lambda: plain(hidden, head, targets, bias), variables, weight)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_third_derivative_raises() -> None:
    hidden, head, targets, bias = problem()
    (first,) = torch.autograd.grad(token_losses(hidden, head, targets, bias).sum(), [hidden], create_graph=True)
    with pytest.raises(RuntimeError, match=r"no further derivative here: .* under needing\(Need.plain\)"):
        torch.autograd.grad(first.sum(), [hidden], create_graph=True)


def matrix_products(loss: Loss, variables: list[Tensor]) -> float:
    """How many products of [tokens, width] with the head the three passes take."""

    def in_place(_: list[int], left: list[int], right: list[int], **__: object) -> int:
        return 2 * left[0] * left[1] * right[1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        first = torch.autograd.grad(loss().sum(), variables, create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in first), variables)
    return counter.get_total_flops() / (2 * TOKENS * WIDTH * VOCABULARY)


def test_a_frozen_head_costs_no_gradient() -> None:
    hidden, head, targets, _ = problem()

    def losses() -> Tensor:
        return token_losses(hidden, head, targets, None, 3)

    everything = matrix_products(losses, [hidden, head])
    head.requires_grad_(False)
    # Forward 1; backward: the logits again and D head; second: logits, u head^T and E head.
    assert (everything, matrix_products(losses, [hidden])) == (1 + 3 + 7, 1 + 2 + 3)


def test_nothing_of_the_size_of_the_logits_is_kept() -> None:
    hidden, head, targets, bias = problem()
    kept: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = token_losses(hidden, head, targets, bias, 3)
        torch.autograd.grad(losses.sum(), [hidden, head, bias], create_graph=True)
    assert set(kept) <= {(), (TOKENS,), (TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)}


def test_bfloat16_sums_in_float32() -> None:
    hidden, head, targets, bias = problem(torch.bfloat16)
    wide = [x.detach().float().requires_grad_() for x in (hidden, head, bias)]
    weight = torch.randn(TOKENS, requires_grad=True)
    ours = derivatives(lambda: token_losses(hidden, head, targets, bias, 3), [hidden, head, bias], weight)
    expected = derivatives(lambda: plain(wide[0], wide[1], targets, wide[2]), wide, weight)
    assert [x.dtype for x in ours] == [torch.float32] + 6 * [torch.bfloat16] + [torch.float32]
    torch.testing.assert_close(ours[0], expected[0])  # no rounding at all on the way to the losses
    for got, exact in zip(ours[1:], expected[1:], strict=True):  # each gradient is rounded once, to 8 bits
        torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


def test_autocast_does_not_round_the_logits() -> None:
    hidden, head, targets, bias = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_losses(hidden, head, targets, bias)
    torch.testing.assert_close(losses, plain(hidden, head, targets, bias))


@pytest.mark.cuda
def test_bfloat16_on_the_device() -> None:
    hidden, head, targets, bias = problem(torch.bfloat16)
    weight = torch.randn(TOKENS, requires_grad=True)
    on_cpu = derivatives(lambda: token_losses(hidden, head, targets, bias, 3), [hidden, head, bias], weight)
    moved = [x.detach().cuda().requires_grad_() for x in (hidden, head, bias, weight)]
    on_device = derivatives(lambda: token_losses(moved[0], moved[1], targets.cuda(), moved[2], 3), moved[:3], moved[3])
    for got, exact in zip(on_device, on_cpu, strict=True):
        torch.testing.assert_close(got.cpu(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


def test_transforms_take_the_composite() -> None:
    hidden, head, targets, bias = problem()
    several = torch.stack([hidden, 2 * hidden])
    together = torch.func.vmap(lambda h: token_losses(h, head, targets, bias))(several)
    torch.testing.assert_close(together, torch.stack([plain(h, head, targets, bias) for h in several]))
    gradient = torch.func.grad(lambda h: token_losses(h, head, targets, bias).sum())(hidden)
    torch.testing.assert_close(gradient, torch.func.grad(lambda h: plain(h, head, targets, bias).sum())(hidden))


def test_small_vocabularies_and_plain_need_take_the_composite(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, targets, bias = problem()
    assert "_Losses" in type(token_losses(hidden, head, targets, bias).grad_fn).__name__
    with needing(Need.plain):
        assert "Nll" in type(token_losses(hidden, head, targets, bias).grad_fn).__name__
    monkeypatch.setattr(cross_entropy, "SMALL_VOCABULARY", VOCABULARY + 1)
    assert "Nll" in type(token_losses(hidden, head, targets, bias).grad_fn).__name__


def test_what_does_not_fit_is_refused() -> None:
    hidden, head, targets, _ = problem()
    with pytest.raises(ValueError, match=r"targets of shape \[6\] for hidden of shape \[7, 5\]"):
        token_losses(hidden, head, targets[1:])
    with pytest.raises(ValueError, match="chunk=0: at least one token at a time"):
        token_losses(hidden, head, targets, chunk=0)


def network(kind: str) -> nn.Module:
    import transformers as hf

    torch.manual_seed(0)
    size = dict(vocab_size=23, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
    if kind == "gpt2":
        config = hf.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=8, **size)
        return hf.GPT2LMHeadModel(config).double()
    small = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, **size)
    if kind == "gpt_neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(max_position_embeddings=8, **small)).double()
    if kind == "phi":  # a head with a bias
        made = hf.PhiForCausalLM(hf.PhiConfig(max_position_embeddings=8, pad_token_id=0, **small)).double()
        nn.init.normal_(made.lm_head.bias)
        return made
    small |= dict(num_key_value_heads=1, pad_token_id=0)
    if kind == "gemma2":  # soft cap
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(head_dim=4, **small)).double()
    if kind == "cohere":  # scale behind the head
        return hf.CohereForCausalLM(hf.CohereConfig(**small)).double()
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(tie_word_embeddings=kind == "qwen2_tied", **small)).double()


def by_logits(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "phi", "qwen2", "qwen2_tied", "gemma2", "cohere"])
def test_losses_of_a_model_equal_those_of_its_logits(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = network(kind)
    losses = TokenLosses(model)
    assert model.training == network(kind).training
    assert losses.chunked == (kind not in ("gemma2", "cohere"))
    assert ("does more than apply a linear head" in caplog.text) != losses.chunked
    ids = torch.randint(23, (3, 6))
    model.eval()
    found = [losses(ids), losses.under(select(model), ids)]
    torch.testing.assert_close(found, 2 * [by_logits(model, ids)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_gradients_flow_to_replaced_weights_tied_or_not(kind: str) -> None:
    model = network(kind).eval()
    losses, ids = TokenLosses(model), torch.randint(23, (2, 6))
    weights = {name: (1.1 * w).detach().requires_grad_() for name, w in select(model).items()}
    expected = torch.autograd.grad(by_replaced(model, weights, ids).sum(), list(weights.values()), allow_unused=True)
    found = torch.autograd.grad(losses.under(weights, ids).sum(), list(weights.values()), allow_unused=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def by_replaced(model: nn.Module, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    logits = torch.func.functional_call(model, weights, (ids[:, :-1],), dict(use_cache=False)).logits
    return nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def test_a_stack_of_weights_gives_every_task_its_own() -> None:
    model = network("gpt2").eval()
    losses, ids = TokenLosses(model), torch.randint(23, (2, 3, 6))
    weights = {
        name: w * torch.tensor([1.0, 2.0]).view(2, *[1] * (w.dim() - 1)) for name, w in stack(select(model), 2).items()
    }
    expected = [by_replaced(model, {name: w[t] for name, w in weights.items()}, ids[t]) for t in range(2)]
    torch.testing.assert_close(losses.under(weights, ids), torch.stack(expected))


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "phi", "qwen2_tied"])
def test_losses_with_their_states_are_the_plain_losses(
    kind: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the states are what the head is applied to; one derivative more of both, by states and losses together."""
    if not chunked:
        monkeypatch.setattr(cross_entropy, "SMALL_VOCABULARY", 24)
    model = network(kind).eval()
    losses, ids = TokenLosses(model), torch.randint(23, (2, 6))
    assert losses.chunked == chunked
    found, states = losses.with_states(ids)
    output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    torch.testing.assert_close(found, by_logits(model, ids), rtol=1e-6, atol=1e-6)
    assert states.shape == (2, 6, 8)
    torch.testing.assert_close(states, output.hidden_states[-1])
    weights = list(model.parameters())

    def second(losses: Tensor, states: Tensor) -> tuple[Tensor, ...]:
        total = (losses * states[:, 1:].square().sum(-1)).sum()
        first = torch.autograd.grad(total, weights, create_graph=True, allow_unused=True)
        there = [gradient for gradient in first if gradient is not None]
        return (*there, *torch.autograd.grad(there, weights, there, allow_unused=True, materialize_grads=True))

    near = 1e-5 if kind in ("gpt2", "phi") else 1e-3  # its norms round to float32
    expected = second(by_logits(model, ids), output.hidden_states[-1])
    torch.testing.assert_close(second(found, states), expected, rtol=near, atol=near)


def test_lora_of_peft_on_the_model_but_not_on_its_head() -> None:
    import peft

    for targets, chunked in ((["q_proj"], True), (["q_proj", "lm_head"], False)):
        config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        model = peft.get_peft_model(network("qwen2"), config).eval()
        losses, ids = TokenLosses(model), torch.randint(23, (2, 6))
        assert losses.chunked == chunked
        torch.testing.assert_close(losses(ids), by_logits(model, ids))


def test_a_small_vocabulary_keeps_the_logits_of_the_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cross_entropy, "SMALL_VOCABULARY", 24)
    with caplog.at_level(logging.INFO):
        assert not TokenLosses(network("gpt2")).chunked
    assert caplog.text == ""


def test_rows_of_one_token_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of one token have nothing to predict"):
        TokenLosses(network("gpt2"))(torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="rows of one token have nothing to predict"):
        TokenLosses(network("gpt2")).with_states(torch.zeros(2, 1, dtype=torch.int64))
