"""The meta-gradient of PERK against a loop in plain PyTorch and against central differences, in float64.

A LLaMA, a Qwen and a GPT-2 of two layers, LoRA of peft, token weights, AdamW inner steps with a rate a tensor and step.
The plain loop knows nothing of the library: no adapter layers (W + scale B A), no lean pieces, no padding, and AdamW
written out. Relative errors are norm(difference) / norm over all tensors of a kind.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from common.engine.settings import RuleName, Snapshots, Unroll
from common.language.batch import Row
from perk.build import Parts
from perk.config import AdapterConfig, MethodConfig
from perk.problems import Problem
from tests.learners import losses_of
from tests.perk.miniature import KINDS, meta_gradient, parts_of, problems, write_model

logger = logging.getLogger(__name__)  # measured errors: pytest --log-cli-level=INFO
STEPS = 4
EXACT = 1e-9
H = 1e-7
"""See tests/common/engine/test_inner.py."""


@pytest.fixture(scope="module", autouse=True)
def float64_throughout() -> Iterator[None]:
    """Models of `transformers` take norms and softmaxes in float32 whatever their weights are."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    def norm(self: Any, states: Tensor) -> Tensor:
        return F.rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)

    softmax = F.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))
        patch.setattr(LlamaRMSNorm, "forward", norm)
        patch.setattr(Qwen2RMSNorm, "forward", norm)
        yield


def batch_of() -> list[Problem]:
    """Two contexts of three and two segments, a question each."""
    return problems()[1:]


@pytest.fixture(scope="module", params=["gpt2", "qwen2"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Parts]:
    """Settings of the inner loop -> parts of one of the models; a test may ask for all of them."""
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param)
    return lambda **how: parts_of(folder, **how)


# ---- the plain loop


@dataclass
class Plain:
    """The base network without adapter, and what of the parts it is called with."""

    network: nn.Module
    scale: float
    weigher: dict[str, Tensor]

    def under(self, adapter: dict[str, Tensor]) -> dict[str, Tensor]:
        """W + scale B A for every adapted matrix W, which GPT-2 keeps transposed."""
        found = {}
        for name in adapter:
            if "lora_A" in name:
                delta = self.scale * adapter[name.replace("lora_A", "lora_B")] @ adapter[name]
                target = name.replace("lora_A.default.", "")
                transposed = type(self.network.get_submodule(target.rpartition(".")[0])).__name__ == "Conv1D"
                found[target] = self.network.get_parameter(target) + (delta.T if transposed else delta)
        return found

    def losses(self, adapter: dict[str, Tensor], row: Row, *, weighted: bool) -> Tensor:
        """Of the scored tokens of one row, without padding; [tokens]."""
        ids = torch.tensor([row.ids])
        given = {"input_ids": ids, "output_hidden_states": True, "use_cache": False}
        output = functional_call(self.network, self.under(adapter), (), given)
        scores, states = output.logits[0].log_softmax(-1), output.hidden_states[-1][0]
        places = range(max(1, row.scored_from), len(row.ids))
        losses = -torch.stack([scores[place - 1, row.ids[place]] for place in places])
        if not weighted:
            return losses
        w = self.weigher
        hidden = F.gelu(states[list(places)] @ w["hidden.weight"].T + w["hidden.bias"])
        raw = (hidden @ w["last.weight"].T + w["last.bias"])[:, 0]
        return losses * torch.log1p(torch.exp(3 * raw)) / 3


def plain_of(parts: Parts) -> Plain:
    """The same numbers in a network that transformers built."""
    from transformers import AutoModelForCausalLM

    state = {
        name.replace(".base_layer.", "."): value.detach()
        for name, value in parts.model.network.state_dict().items()
        if "lora_" not in name
    }
    network = AutoModelForCausalLM.from_config(parts.model.network.config, attn_implementation="eager")
    network.double().eval().load_state_dict(state)
    weigher = {} if parts.weigher is None else dict(parts.weigher.named_parameters())
    return Plain(network, scale=2 / math.sqrt(2), weigher=weigher)


def reference(parts: Parts, batch: list[Problem], keep: int, rule: RuleName = RuleName.adamw) -> dict[str, Tensor]:
    """Meta-gradients with the inner gradients of all but the last `keep` steps detached."""
    plain, templates, inner = plain_of(parts), parts.templates, parts.learner.writer.inner  # type: ignore[union-attr]
    assert parts.rates is not None
    start = {name: p for name, p in parts.model.network.named_parameters() if p.requires_grad}
    numbers, rows = parts.rates.numbers, parts.rates.row
    total = torch.zeros((), dtype=torch.float64)
    for problem in batch:
        adapter, means, squares = dict(start), dict.fromkeys(start, 0.0), dict.fromkeys(start, 0.0)
        segments = templates.segments(problem)
        for step in range(STEPS):
            values = torch.cat([plain.losses(adapter, row, weighted=bool(plain.weigher)) for row in segments])
            gradients = torch.autograd.grad(values.mean(), list(adapter.values()), create_graph=True)
            if step < STEPS - keep:
                gradients = tuple(gradient.detach() for gradient in gradients)
            moved = {}
            for (name, w), g in zip(adapter.items(), gradients, strict=True):
                rate = numbers[rows[name], step]
                if rule is RuleName.sgd:
                    moved[name] = w - rate * (g + inner.weight_decay * w)
                    continue
                means[name] = inner.beta1 * means[name] + (1 - inner.beta1) * g
                squares[name] = inner.beta2 * squares[name] + (1 - inner.beta2) * g * g
                mean = means[name] / (1 - inner.beta1 ** (step + 1))
                root = (squares[name] / (1 - inner.beta2 ** (step + 1))).sqrt()
                moved[name] = w * (1 - rate * inner.weight_decay) - rate * mean / (root + inner.eps)
            adapter = moved
        asked = [templates.question(problem, q, parts.learner.method.target) for q in problem.questions]
        total = total + torch.stack([plain.losses(adapter, row, weighted=False).mean() for row in asked]).mean()
    learning = {**start, **{f"weigher.{name}": value for name, value in plain.weigher.items()}, "rates": numbers}
    found = torch.autograd.grad(total, list(learning.values()), allow_unused=True, materialize_grads=True)
    return {"outer loss": total.detach(), **dict(zip(learning, found, strict=True))}


def kinds_of(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Kind of number -> all of them, flat."""
    kinds: dict[str, list[Tensor]] = {}
    for name, value in found.items():
        kind = "adapter" if "lora_" in name else name.split(".")[0]
        kinds.setdefault(kind, []).append(value.detach().flatten())
    return {kind: torch.cat(values) for kind, values in kinds.items()}


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of each kind; 0 where both are zero throughout."""
    ours, theirs = kinds_of(found), kinds_of(expected)
    assert ours.keys() == theirs.keys()
    return {
        kind: float((ours[kind] - value).norm() / (value.norm() if value.any() else 1))
        for kind, value in theirs.items()
    }


def gradients_of(parts: Parts, batch: list[Problem]) -> dict[str, Tensor]:
    loss, found = meta_gradient(parts, batch)
    return {"outer loss": torch.tensor(loss, dtype=torch.float64), **found}


# ---- every number of exact steps


@pytest.mark.parametrize("make", KINDS, indirect=True)
@pytest.mark.parametrize("keep", range(STEPS + 1))
def test_truncated_unrolling_equals_a_plain_loop_that_detaches_gradients(make: Callable[..., Parts], keep: int) -> None:
    parts, batch = make(unroll=Unroll.tgu, keep=keep), batch_of()
    expected = reference(parts, batch, keep)
    found = errors(gradients_of(parts, batch), expected)
    logger.info("keep=%d: %s", keep, found)
    assert max(found.values()) < EXACT
    assert expected["rates"].all(), "the direct term reaches the rates of truncated steps"
    weigher = kinds_of(expected)["weigher"]
    assert weigher.any() == (keep > 0), "only a retained step's gradient depends on the weights"


def test_all_steps_kept_are_the_stored_graph_and_none_kept_is_first_order(make: Callable[..., Parts]) -> None:
    batch = batch_of()
    for keep, other in ((STEPS, {"unroll": Unroll.stored}), (0, {"unroll": Unroll.first_order})):
        ours, theirs = (gradients_of(make(**how), batch) for how in ({"unroll": Unroll.tgu, "keep": keep}, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), keep


@pytest.mark.parametrize("fresh", [False, True], ids=["random start", "published start"])
def test_every_exact_unroll_gives_one_meta_gradient(make: Callable[..., Parts], fresh: bool) -> None:
    """At the published start B is zero, A has no gradient in the first step, and every token weighs the same."""
    batch = batch_of()
    exact = gradients_of(make(unroll=Unroll.stored, fresh=fresh), batch)
    for how in (
        {"unroll": Unroll.tgu, "keep": STEPS, "micro_batch": 2},
        {"unroll": Unroll.recompute, "micro_batch": 2},
        {"unroll": Unroll.recompute, "keep": 1, "snapshots": Snapshots.host},
    ):
        found = errors(gradients_of(make(fresh=fresh, **how), batch), exact)
        logger.info("%s: %s", how, found)
        assert max(found.values()) < EXACT, how
    assert all(value.any() for value in kinds_of(exact).values())


def test_the_numbers_of_kept_steps_all_differ(make: Callable[..., Parts]) -> None:
    found = [kinds_of(gradients_of(make(unroll=Unroll.tgu, keep=keep), batch_of())) for keep in range(STEPS + 1)]
    for kind in ("adapter", "rates", "weigher"):
        for fewer, more in pairwise(found if kind != "rates" else found[:-1]):  # no rate reaches the first gradient
            assert (fewer[kind] - more[kind]).norm() > 1e-3 * more[kind].norm(), kind
    assert all(each["outer loss"] == pytest.approx(found[0]["outer loss"], rel=1e-14) for each in found)


@pytest.mark.parametrize("make", KINDS, indirect=True)
@pytest.mark.parametrize("kind", ["adapter", "rates", "weigher"])
def test_the_exact_meta_gradient_is_that_of_central_differences(make: Callable[..., Parts], kind: str) -> None:
    """Along a unit direction that leans towards the gradient, in all numbers of a kind at once."""
    parts, batch = make(unroll=Unroll.tgu, keep=STEPS), batch_of()
    _, found = meta_gradient(parts, batch)
    learning = {name: p for name, p in parts.model.network.named_parameters() if p.requires_grad}
    if kind == "weigher" and parts.weigher is not None:
        learning = {f"weigher.{name}": p for name, p in parts.weigher.named_parameters()}
    if kind == "rates" and parts.rates is not None:
        learning = {"rates": parts.rates.numbers}
    exact = torch.cat([found[name].flatten() for name in learning])
    direction = exact / exact.norm() + F.normalize(torch.randn_like(exact), dim=0)
    direction /= direction.norm()
    kept = {name: p.detach().clone() for name, p in learning.items()}
    moves = dict(zip(learning, direction.split([p.numel() for p in learning.values()]), strict=True))

    def outer(h: float) -> float:
        with torch.no_grad():
            for name, p in learning.items():
                p.copy_(kept[name] + h * moves[name].view_as(p))
        return sum(loss.item() for loss in losses_of(parts.learner, batch))

    difference = (8 * (outer(H) - outer(-H)) - (outer(2 * H) - outer(-2 * H))) / (12 * H)
    relative = abs(difference / float(exact @ direction) - 1)
    logger.info("%s: relative error %.1e", kind, relative)
    assert relative < 1e-6


# ---- what the first order is


def outer_gradient_at(parts: Parts, problem: Problem) -> dict[str, Tensor]:
    """The gradient of the outer loss where the inner steps end, as if they had not been."""
    learner: Any = parts.learner
    fast = {name: w.detach().requires_grad_() for name, w in learner.memorise([problem], training=False).items()}
    return dict(zip(fast, torch.autograd.grad(learner.answer_loss(fast, [problem]), list(fast.values())), strict=True))


@pytest.mark.parametrize("rule", [RuleName.sgd, RuleName.adamw])
def test_without_kept_steps_the_start_gets_the_gradient_at_the_end(make: Callable[..., Parts], rule: RuleName) -> None:
    """Up to weight decay, through which alone a truncated step differs from the identity."""
    parts, problem = make(unroll=Unroll.tgu, keep=0, rule=rule, weight_decay=0.5), problems()[0]
    _, found = meta_gradient(parts, [problem])
    at_end = outer_gradient_at(parts, problem)
    assert parts.rates is not None
    for name, gradient in at_end.items():
        decayed = (1 - 0.5 * parts.rates.numbers[parts.rates.row[name]]).prod()
        assert decayed < 0.97
        torch.testing.assert_close(found[name], decayed * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keep", [0, 2, STEPS])
def test_plain_gradient_steps_without_token_weights_too(make: Callable[..., Parts], keep: int) -> None:
    method = MethodConfig(token_weights=False)
    parts = make(unroll=Unroll.tgu, keep=keep, rule=RuleName.sgd, lr=0.1, method=method)
    found = errors(gradients_of(parts, batch_of()), reference(parts, batch_of(), keep, RuleName.sgd))
    assert "weigher" not in found and max(found.values()) < EXACT


def test_dropout_of_the_adapter_draws_the_same_masks_in_every_exact_unroll(make: Callable[..., Parts]) -> None:
    found = []
    for how in ({"unroll": Unroll.stored}, {"unroll": Unroll.tgu, "keep": STEPS}, {"unroll": Unroll.recompute}):
        parts = make(lora=AdapterConfig(rank=2, alpha=2, dropout=0.3), **how)
        parts.learner.learns.train()
        torch.manual_seed(5)
        found.append(gradients_of(parts, batch_of()))
    without = gradients_of(make(unroll=Unroll.stored), batch_of())
    assert found[0]["outer loss"] != without["outer loss"]
    assert all(max(errors(each, found[0]).values()) < EXACT for each in found[1:])
