"""Token weights of the inner loss: where they start, what they read, and where gradients go."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from common.engine.weights import select
from common.language.writer import Writer
from perk.build import Parts
from perk.methods import Perk
from perk.objective import Weigher, WeightedLosses
from tests.perk.miniature import parts_of, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gpt2"), "gpt2")


def ids_of(parts: Parts) -> torch.Tensor:
    return torch.randint(len(parts.templates.tokenizer), (3, 7))


def test_all_weights_start_at_a_third_of_the_logarithm_of_two() -> None:
    weigher = Weigher(6).double()
    found = weigher(torch.randn(2, 5, 6).double())
    assert found.shape == (2, 5)
    torch.testing.assert_close(found, torch.full_like(found, math.log(2) / 3), rtol=1e-12, atol=0)


def test_the_network_is_the_papers() -> None:
    weigher = Weigher(6).double()
    assert {name: tuple(p.shape) for name, p in weigher.named_parameters()} == {
        "hidden.weight": (128, 6), "hidden.bias": (128,), "last.weight": (1, 128), "last.bias": (1,),
    }  # fmt: skip
    for parameter in weigher.parameters():
        torch.nn.init.normal_(parameter)
    states = torch.randn(4, 6).double()
    hidden = F.gelu(states @ weigher.hidden.weight.T + weigher.hidden.bias)
    raw = (hidden @ weigher.last.weight.T + weigher.last.bias).squeeze(-1)
    torch.testing.assert_close(weigher(states), torch.log1p(torch.exp(3 * raw)) / 3)
    assert (weigher(states) > 0).all()


def test_at_the_start_losses_are_plain_ones_scaled_and_the_last_layer_alone_learns(folder: Path) -> None:
    parts = parts_of(folder, fresh=True)
    assert isinstance(parts.learner, Perk) and parts.weigher is not None
    ids = ids_of(parts)
    weighted = parts.learner.memorised
    assert isinstance(weighted, WeightedLosses)
    plain = parts.model.losses(ids)
    torch.testing.assert_close(weighted(ids), plain * math.log(2) / 3)
    torch.testing.assert_close(weighted.under(parts.learner.writer.start(1), ids), weighted(ids))
    weighted(ids).sum().backward()
    found = {name: bool(p.grad is not None and p.grad.any()) for name, p in parts.weigher.named_parameters()}
    assert found == {"hidden.weight": False, "hidden.bias": False, "last.weight": True, "last.bias": True}


def test_a_token_is_weighed_by_the_state_that_has_read_it(folder: Path) -> None:
    """Not by the one that predicts it: the weight of token t changes with token t and with no later one."""
    parts = parts_of(folder)
    assert isinstance(parts.learner, Perk)
    ids = ids_of(parts)
    changed = ids.clone()
    changed[:, 4] = (ids[:, 4] + 1) % 20
    weights = []
    for given in (ids, changed):
        with torch.no_grad():
            weights.append(parts.learner.memorised.under({}, given) / parts.model.losses(given))
    same = torch.isclose(weights[0], weights[1], rtol=1e-12, atol=0)
    assert same[:, :3].all() and not same[:, 3].any(), "entry 3 is the weight of token 4"


def test_gradients_reach_fast_weights_through_loss_and_weight(folder: Path) -> None:
    parts = parts_of(folder)
    assert isinstance(parts.learner, Perk) and parts.weigher is not None
    ids, weighted = ids_of(parts), parts.learner.memorised
    adapter = parts.learner.writer.start(1)
    found = torch.autograd.grad(weighted.under(adapter, ids).sum(), [*adapter.values(), *parts.weigher.parameters()])
    losses, states = parts.model.losses.with_states(ids)
    expected = torch.autograd.grad(
        (losses * parts.weigher(states[:, 1:])).sum(), [*adapter.values(), *parts.weigher.parameters()]
    )
    assert all(gradient.any() for gradient in found)
    torch.testing.assert_close(found, expected)


def test_only_weights_of_the_network_can_be_replaced(folder: Path) -> None:
    parts = parts_of(folder)
    assert isinstance(parts.learner, Perk)
    with pytest.raises(ValueError, match="has no parameter"):
        parts.learner.memorised.under({"weigher.last.bias": torch.zeros(1)}, ids_of(parts))
    names = set(select(parts.learner.learns))
    assert {name.partition(".")[0] for name in names} == {"0", "1"}, "network and weigher both learn"


def test_weigher_and_rates_are_float32_beside_bfloat16_weights(folder: Path) -> None:
    from perk.build import build
    from perk.config import AdapterConfig, ModelConfig, TrainConfig

    lora = AdapterConfig(rank=2)
    model = ModelConfig(name=str(folder), tokenizer=str(folder / "words"), pretrained=False, lora=lora)
    parts = build(TrainConfig(model=model), torch.device("cpu"), torch.bfloat16)
    assert isinstance(parts.learner, Perk) and parts.rates is not None and parts.weigher is not None
    assert next(parts.weigher.parameters()).dtype == parts.rates.numbers.dtype == torch.float32
    losses = parts.learner.memorised.under(parts.learner.writer.start(1), ids_of(parts))
    assert losses.dtype == torch.float32 and losses.isfinite().all()


def test_keys_of_the_runtime_reach_losses_and_writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the network that weighs tokens stays out of bfloat16."""
    from common.run.schema import RuntimeConfig
    from perk.build import build
    from perk.config import AdapterConfig, ModelConfig, TrainConfig

    captured: list[bool] = []
    monkeypatch.setattr("perk.methods.Writer", lambda *a, **kw: captured.append(kw["capture"]) or Writer(*a, **kw))
    model = ModelConfig(
        name=str(folder), tokenizer=str(folder / "words"), pretrained=False, lora=AdapterConfig(rank=2, dropout=0.0)
    )
    runtime = RuntimeConfig(capture=True, autocast=True)
    parts = build(TrainConfig(model=model, runtime=runtime), torch.device("cpu"), torch.float32)
    assert isinstance(parts.learner, Perk) and parts.weigher is not None and captured == [True]
    start, ids, seen, found = parts.learner.writer.start(1), ids_of(parts), [], []
    parts.weigher.hidden.register_forward_hook(lambda _, given, hidden: seen.append((given[0].dtype, hidden.dtype)))
    assert parts.model.losses.autocast
    parts.model.network.eval()
    for autocast in (True, False):
        parts.model.losses.autocast = autocast
        found.append(parts.learner.memorised.under(start, ids))
    assert seen == [(torch.float32, torch.float32)] * 2
    torch.testing.assert_close(*found, rtol=0.02, atol=0.02)
    assert not found[0].equal(found[1])
