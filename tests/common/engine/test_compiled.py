"""Compiled derivatives of an inner loss are the uncompiled ones, in float64, and nothing is baked into a program."""

import logging
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine import compiled
from common.engine.compiled import Compiled
from common.engine.derivatives import plain_gradient, plain_product
from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW
from common.engine.settings import Unroll
from common.engine.weights import Weights, call, select, stack
from common.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
"""Of torch's own modules, when torch.compile first reads them."""
VOCABULARY, LENGTH, ROWS, STEPS = 13, 5, 2, 2
FAST = ["transformer.h.0.mlp.*", "*.ln_f.*"]
FROZEN = "transformer.wpe.weight"
"""Frozen here: what a program reads and nobody differentiates by."""


def network_of(dropout: float = 0.0) -> nn.Module:
    """A GPT-2 of one layer and width 8 in float64; position embeddings are frozen."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=LENGTH, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0, embd_pdrop=0.0, resid_pdrop=dropout, attn_pdrop=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    network: nn.Module = GPT2LMHeadModel(config).double().train(dropout > 0)
    network.get_parameter(FROZEN).requires_grad_(False)
    return network


def loss_of(network: nn.Module) -> Callable[[Weights, Tensor], Tensor]:
    """Next-token loss of ids [rows, length], or of a stack [tasks, rows, length] -> [tasks]."""

    def one_task(weights: Weights, ids: Tensor) -> Tensor:
        logits = call(network, weights, input_ids=ids, use_cache=False).logits[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def loss(weights: Weights, ids: Tensor) -> Tensor:
        if ids.dim() == 2:
            return one_task(weights, ids)
        losses: Tensor = torch.func.vmap(one_task)(weights, ids)
        return losses

    return loss


class Problem:
    """A network, its compiled and its plain loss, what is fast and what else learns."""

    def __init__(self, dropout: float = 0.0) -> None:
        self.network = network_of(dropout)
        self.plain = loss_of(self.network)
        self.compiled = Compiled(self.plain, self.network)
        self.start = select(self.network, FAST)
        self.also = [w for name, w in self.network.named_parameters() if name not in self.start and w.requires_grad]
        self.rates = LearnedRates(list(self.start), steps=STEPS, start=0.1).double()

    def solve(self, loss: Any, unroll: Unroll, ids: Tensor) -> list[Tensor]:
        """Adapted weights, and the outer gradient by start, rates and others."""
        torch.manual_seed(1)
        how = {"also": self.also} if unroll is Unroll.recompute else {}
        fast = adapt(loss, self.start, [ids], steps=STEPS, rule=SGD(0.01), rates=self.rates, unroll=unroll, **how)
        outer = self.plain(fast.weights, ids.flip(-1))
        found = torch.autograd.grad(outer, [*self.start.values(), self.rates.numbers, *self.also])
        return [*(w.detach() for w in fast.weights.values()), *found]

    def agrees(self, ids: Tensor) -> None:
        """Recomputing with compiled derivatives gives the numbers of the stored graph."""
        expected = self.solve(self.plain, Unroll.stored, ids)
        assert expected[-1].abs().max() > 0 and expected[-1 - len(self.also)].ne(0).all()
        for found, wanted in zip(self.solve(self.compiled, Unroll.recompute, ids), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def ids_of(seed: int, *shape: int) -> Tensor:
    return torch.randint(VOCABULARY, shape or (ROWS, LENGTH), generator=torch.Generator().manual_seed(seed))


def test_traced_steps_go_on_from_a_state_are_projected_and_take_data_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)  # the traced graph itself: seconds less
    network, rule = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), AdamW(eps=1e-3)
    start, data = select(network), torch.randn(4, 5, 3, dtype=torch.double)

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return (call(network, weights, x) - 1).square().mean()

    def box(weights: Weights) -> Weights:
        return {name: w.clamp(-0.4, 0.4) for name, w in weights.items()}

    found, both = [], Compiled(loss, network)
    for inner, unroll in ((loss, Unroll.stored), (both, Unroll.recompute)):
        how: dict[str, Any] = {"steps": 2, "rule": rule, "rates": 0.1, "project": box, "unroll": unroll}
        first = adapt(inner, start, lambda step: [data[step]], **how)
        second = adapt(inner, first.weights, lambda step: [data[2 + step]], state=first.state, **how)
        outer = torch.stack([w.sin().sum() for w in second.weights.values()]).sum()
        found.append([*second.weights.values(), *torch.autograd.grad(outer, list(start.values()))])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
    assert len(both._programs) == 1 and all(w.abs().max() == 0.4 for w in found[0][:3])


@pytest.mark.slow
def test_compiled_steps_give_the_numbers_of_the_stored_graph_and_nothing_is_baked_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With dropout: a gradient draws what an uncompiled one draws, and its step is replayed with the same masks."""
    problem = Problem(dropout=0.3)
    values = [torch.manual_seed(seed) and plain_gradient(problem.plain, problem.start, ids_of(0))[1] for seed in (0, 1)]
    assert values[0] != values[1], "dropout acts"
    problem.agrees(ids_of(0))
    assert len(problem.compiled._programs) == 1

    def refuse(*_: Any) -> Any:
        raise AssertionError("another compilation")

    monkeypatch.setattr(compiled, "_compile", refuse)
    before = problem.solve(problem.compiled, Unroll.recompute, ids_of(0))
    with torch.no_grad():  # fast, learning and frozen weights all change in place
        for weight in problem.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    problem.agrees(ids_of(1))
    with torch.no_grad():
        problem.network.get_parameter(FROZEN).add_(1.0)
    problem.agrees(ids_of(1))
    assert not torch.allclose(problem.solve(problem.compiled, Unroll.recompute, ids_of(0))[-1], before[-1])


@pytest.mark.slow
def test_stacked_weights_and_what_is_not_reached() -> None:
    """A weight that the loss does not read, and a learning tensor that it does not: their derivatives are 0."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, VOCABULARY)).double()
    fast = select(network, ["1.*"])
    others_learn = [w for name, w in network.named_parameters() if name not in fast]
    start = stack({name: w.detach() for name, w in fast.items()}, 2)
    generator = torch.Generator().manual_seed(3)
    start = {name: w + 0.1 * torch.randn(w.shape, generator=generator).double() for name, w in start.items()}
    start["idle"] = torch.ones(2, 3).double()
    vector = [torch.randn(w.shape, generator=generator).double() for w in start.values()]
    other = torch.ones(4, dtype=torch.double, requires_grad=True)

    def one_task(weights: Weights, ids: Tensor) -> Tensor:
        logits = call(network, weights, ids[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def loss(weights: Weights, ids: Tensor) -> Tensor:
        losses: Tensor = torch.func.vmap(one_task)({name: w for name, w in weights.items() if name != "idle"}, ids)
        return losses

    both, ids, also = Compiled(loss, network), ids_of(4, 2, ROWS, LENGTH), [*others_learn, other]
    through, others = both.product(start, ids, vector, also)
    wanted, wanted_others = plain_product(loss, start, ids, vector, also)
    torch.testing.assert_close([*through, *others], [*wanted, *wanted_others], rtol=1e-9, atol=1e-11)
    assert through[-1].eq(0).all() and others[-1].eq(0).all()
    assert all(x.ne(0).any() for x in [*through[:-1], *others[:-1]])


def test_further_shapes_run_uncompiled_and_say_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "MOST_SHAPES", 0)
    problem = Problem()
    with caplog.at_level(logging.WARNING):
        problem.agrees(ids_of(6))
        problem.agrees(ids_of(7, ROWS + 1, LENGTH))
    said = "inner.compile=true: more than 0 shapes of data; further ones run uncompiled (pad to fewer)"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert not problem.compiled._programs


def test_without_a_compiler_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    network = network_of()
    with pytest.raises(UserError) as caught:
        Compiled(loss_of(network), network)
    assert str(caught.value) == (
        "inner.compile=true needs a C++ compiler, and none is on the PATH; install one (Debian and Ubuntu: apt install "
        "g++), or use inner.compile=false"
    )


def test_a_learning_tensor_that_is_not_named_is_refused() -> None:
    problem = Problem()
    vector = [torch.ones_like(w) for w in problem.start.values()]
    text = (
        f"the inner loss depends on a learning tensor of shape [{VOCABULARY}, 8] that is not a fast weight; "
        "name it in adapt(..., also=[...]), or freeze it with requires_grad_(False)"
    )
    unnamed = [w for w in problem.also if w is not problem.network.get_parameter("transformer.wte.weight")]
    with pytest.raises(ValueError) as caught:
        problem.compiled.product(problem.start, ids_of(8), vector, unnamed)
    assert str(caught.value) == text
