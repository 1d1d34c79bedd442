"""Losses whose matrix products run in bfloat16: what stays float32, and how near the numbers stay."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.engine import compiled
from common.engine.derivatives import plain_gradient, plain_product
from common.engine.footprint import footprint
from common.engine.rates import make_rates
from common.engine.reached import reached
from common.engine.settings import InnerConfig, RuleName, Unroll
from common.engine.traced import trace
from common.engine.twice import policy
from common.language import model as models
from common.language.attention import ATTENTION, register
from common.language.batch import Row, Rows
from common.language.config import LoraConfig, ModelConfig
from common.language.model import LanguageModel
from common.language.objective import mean_loss
from common.language.writer import Writer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LARGE = 5000
"""A vocabulary whose losses are taken in chunks; the composite is used for SMALL."""
SMALL = 50
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


def gpt2(vocabulary: int, *, rank: int = 0, device: torch.device = CPU) -> tuple[LanguageModel, LanguageModel]:
    """The same weights twice: products in bfloat16, and in float32."""
    config = ModelConfig(dropout=0.0, lora=LoraConfig(rank=rank, alpha=4, dropout=0.0))
    found = []
    for autocast in (True, False):
        torch.manual_seed(0)
        made = models.of_shape(2, 32, 4, vocabulary, 16, config, device=device, dtype=torch.float32, autocast=autocast)
        for name, parameter in made.network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
        found.append(made)
    return found[0], found[1]


def llama() -> tuple[LanguageModel, LanguageModel]:
    """Rotary positions, RMS norms, SiLU, groups of heads."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    register()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = LlamaConfig(vocab_size=SMALL, num_key_value_heads=2, max_position_embeddings=32, **sizes)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=torch.float32)
    models.make_lean(network)
    return LanguageModel(network, 32, autocast=True), LanguageModel(network, 32)


def rows_of(seed: int, count: int = 3) -> list[Row]:
    draw = torch.Generator().manual_seed(seed)
    return [Row(tuple(torch.randint(SMALL, (9,), generator=draw).tolist()), 1) for _ in range(count)]


class Asked:
    """A writer on a model, and the outer gradient of a question through what it writes."""

    def __init__(self, model: LanguageModel, **inner: Any) -> None:
        config = InnerConfig(**{"rule": RuleName.sgd, "weight_decay": 0.0, "steps": 2, "lr": 0.05, **inner})
        names = [name for name, p in model.network.named_parameters() if p.requires_grad]
        self.device = next(model.network.parameters()).device
        self.rates = make_rates(config, names).to(self.device)
        self.loss = lambda weights, rows: mean_loss(model.losses, weights, rows)
        self.writer = Writer(model, self.rates, config, self.loss, pad=1)
        self.tasks = 2 if config.stack else 1

    def rows(self, seed: int) -> Rows:
        return self.writer.rows([rows_of(seed + task) for task in range(self.tasks)])

    def outer(self) -> tuple[float, Tensor, Tensor]:
        """Outer loss, its gradient by all slow weights in one vector, and by the rates."""
        fast = self.writer.write(self.rows(0), tasks=self.tasks, training=True)
        assert {x.dtype for x in (*fast.weights.values(), *fast.losses)} == {torch.float32}
        loss = self.loss(fast.weights, self.rows(7)).sum()
        found = torch.autograd.grad(loss, [*self.writer.slow.values(), self.rates.numbers])
        assert {x.dtype for x in found} == {torch.float32}
        return loss.item(), torch.cat([x.flatten() for x in found[:-1]]), found[-1].flatten()


@contextmanager
def products() -> Iterator[list[torch.dtype]]:
    """Types of the matrices that are multiplied inside the block."""
    seen: list[torch.dtype] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in PRODUCTS:
                seen.extend(x.dtype for x in args if isinstance(x, Tensor))
            return func(*args, **(kwargs or {}))

    with Watch():
        yield seen


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


@pytest.fixture(params=[False, True], ids=["composite", "lean"])
def lean(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's operators where tensors are small, and the hand-written ones whatever their size."""
    if request.param:
        monkeypatch.setattr(policy, "SMALL", 0)


NETWORKS = {
    "small vocabulary": lambda: gpt2(SMALL),
    "large vocabulary": lambda: gpt2(LARGE),
    "lora": lambda: gpt2(SMALL, rank=2),
    "llama": llama,
}


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("network", NETWORKS)
def test_the_outer_gradient_stays_float32_and_points_where_that_of_float32_does(network: str) -> None:
    rounded, exact = NETWORKS[network]()
    with products() as seen:
        loss, by_weights, by_rates = Asked(rounded).outer()
    assert seen.count(torch.bfloat16) > len(seen) / 2
    wanted, exact_by_weights, exact_by_rates = Asked(exact).outer()
    assert loss == pytest.approx(wanted, rel=0.01) and loss != wanted
    assert cosine(by_weights, exact_by_weights) > 0.99 and cosine(by_rates, exact_by_rates) > 0.99


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "how", [{"unroll": Unroll.recompute}, {"unroll": Unroll.first_order}, {"stack": True}], ids=str
)
def test_every_way_to_adapt_takes_the_same_products(network: str, how: dict[str, Any]) -> None:
    rounded, exact = NETWORKS[network]()
    _, by_weights, by_rates = Asked(rounded, **how).outer()
    _, exact_by_weights, exact_by_rates = Asked(exact, **how).outer()
    assert cosine(by_weights, exact_by_weights) > 0.99 and cosine(by_rates, exact_by_rates) > 0.99


@pytest.mark.parametrize(
    "inner, warned",
    [
        ({"rule": RuleName.adamw}, True),
        ({"rule": RuleName.adamw, "eps": 1e-3}, False),
        ({"rule": RuleName.adamw, "unroll": Unroll.first_order}, False),
        ({}, False),
    ],
)
def test_a_small_eps_of_adamw_is_warned_of(
    inner: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rounded, exact = gpt2(SMALL)
    Asked(exact, **inner)
    assert not caplog.messages
    Asked(rounded, **inner)
    assert ["use inner.eps=0.001 or more" in message for message in caplog.messages] == [True] * warned


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_what_is_compiled_multiplies_in_bfloat16_too() -> None:
    """The graph that goes to the compiler, and its derivatives, run without it."""
    asked = Asked(gpt2(SMALL)[0])
    leaves = tree_leaves(asked.rows(0))
    program = trace(asked.loss, asked.writer.slow, asked.rows(0), reached(asked.loss))
    multiplied = [n.args for n in program.graph.graph.nodes if getattr(n.target, "overloadpacket", None) in PRODUCTS]
    assert multiplied and {x.meta["val"].dtype for args in multiplied for x in args} == {torch.bfloat16}
    values, data = [w.detach() for w in asked.writer.slow.values()], [x for x in leaves if isinstance(x, Tensor)]
    *found, _ = compiled._gradient_of(program.graph)(values, data, program.held)
    wanted, _ = plain_gradient(asked.loss, asked.writer.slow, asked.rows(0))
    *moved, _ = compiled._product_of(program.graph, [])(values, data, program.held, found)
    expected, _ = plain_product(asked.loss, asked.writer.slow, asked.rows(0), found, [])
    assert {x.dtype for x in (*found, *moved)} == {torch.float32}
    assert cosine(flat(found), flat(wanted)) > 0.99 and cosine(flat(moved), flat(expected)) > 0.99


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors])


@pytest.mark.parametrize("vocabulary", [SMALL, LARGE])
def test_memory_is_planned_with_the_casts(vocabulary: int) -> None:
    found = []
    for model in gpt2(vocabulary):
        asked = Asked(model)
        read, question = asked.rows(0), asked.rows(7)
        cost = footprint(
            asked.loss, lambda w, a=asked, q=question: a.loss(w, q), asked.writer.slow, [read], asked.writer.rule
        )
        found.append(cost)
    rounded, exact = found
    assert rounded.fast == exact.fast, "fast weights stay float32"
    assert rounded.graph != exact.graph


@pytest.mark.cuda
@pytest.mark.parametrize("vocabulary", [SMALL, LARGE])
def test_the_outer_gradient_on_a_gpu_points_where_that_of_float32_does(vocabulary: int) -> None:
    rounded, exact = gpt2(vocabulary, device=CUDA)
    found, wanted = Asked(rounded).outer(), Asked(exact).outer()
    assert found[0] == pytest.approx(wanted[0], rel=0.01) and cosine(found[1], wanted[1]) > 0.99
