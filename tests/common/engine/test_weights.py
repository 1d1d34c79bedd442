"""Fast weights: which are selected, that a module runs with them and keeps its own, and stacks of them."""

import re

import pytest
import torch
from torch import nn

from common.engine.weights import Weights, call, leaves, norm, select, stack, unstack
from common.errors import UserError


class Tied(nn.Module):
    """An embedding that is also the head, as in most language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.mix = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.embed(ids)))


@pytest.fixture
def module() -> Tied:
    return Tied().double()


IDS = torch.tensor([0, 3, 4])


def by_hand(weights: Weights, ids: torch.Tensor) -> torch.Tensor:
    hidden = weights["embed.weight"][ids] @ weights["mix.weight"].T + weights["mix.bias"]
    return hidden @ weights["embed.weight"].T


def test_selected_weights_are_the_parameters_themselves_in_their_order(module: Tied) -> None:
    chosen = select(module)
    assert list(chosen) == ["embed.weight", "mix.weight", "mix.bias"]
    assert all(value is dict(module.named_parameters())[name] for name, value in chosen.items())


def test_patterns_choose_by_name_and_overlap_without_doubling(module: Tied) -> None:
    assert list(select(module, ["mix.*"])) == ["mix.weight", "mix.bias"]
    assert list(select(module, ["*.bias", "mix.*", "embed.weight"])) == ["embed.weight", "mix.weight", "mix.bias"]


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (
            ["mix.*", "Mix.*"],
            "inner.weights: the pattern 'Mix.*' matches no parameter; names look like embed.weight, mix.weight, "
            "mix.bias, ...; use '*' for all weights",
        ),
        (
            ["head.*"],
            "inner.weights: the pattern 'head.*' matches no parameter; it is tied to embed.weight: use that name",
        ),
        ([], "inner.weights=[]: no weight is fast; use ['*'] for all"),
    ],
)
def test_a_pattern_that_selects_nothing_is_refused_with_the_names(module: Tied, patterns: list, text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        select(module, patterns)


def test_a_call_uses_the_given_weights_in_every_place_of_a_tied_one_and_leaves_the_module_alone(module: Tied) -> None:
    before = {name: (value.clone(), value._version) for name, value in module.named_parameters()}
    fast = {name: torch.randn_like(value) for name, value in select(module).items()}
    torch.testing.assert_close(call(module, fast, IDS), by_hand(fast, IDS))
    for name, value in module.named_parameters():
        assert torch.equal(value, before[name][0]) and value._version == before[name][1]


def test_parameters_not_named_keep_their_values_and_their_gradient(module: Tied) -> None:
    fast = leaves(select(module, ["mix.bias"]))
    call(module, fast, ids=IDS).sum().backward()
    assert fast["mix.bias"].grad is not None and module.mix.bias.grad is None
    assert module.mix.weight.grad is not None


def test_a_name_that_the_module_does_not_have_is_refused(module: Tied) -> None:
    with pytest.raises(ValueError, match=re.escape("Tied has no parameter or buffer ['mix.weigth']")):
        call(module, {"mix.weigth": module.mix.weight}, IDS)


def test_a_stack_is_a_view_whose_gradient_is_the_sum_over_tasks(module: Tied) -> None:
    start = select(module)
    stacked = stack(start, 3)
    assert all(value.shape == (3, *start[name].shape) for name, value in stacked.items())
    assert stacked["mix.weight"].data_ptr() == module.mix.weight.data_ptr()
    factors = torch.tensor([1.0, 2.0, 4.0], dtype=torch.double)
    (found,) = torch.autograd.grad((stacked["mix.bias"] * factors[:, None]).sum(), [module.mix.bias])
    assert torch.equal(found, torch.full_like(found, 7.0))


def test_a_stacked_call_gives_every_task_its_own_weights(module: Tied) -> None:
    tasks = [{name: torch.randn_like(value) for name, value in select(module).items()} for _ in range(3)]
    stacked = {name: torch.stack([task[name] for task in tasks]) for name in tasks[0]}
    answers = torch.func.vmap(lambda fast: call(module, fast, IDS))(stacked)
    for index, task in enumerate(tasks):
        assert all(torch.equal(value, task[name]) for name, value in unstack(stacked, index).items())
        torch.testing.assert_close(answers[index], by_hand(task, IDS))


def test_leaves_have_the_values_and_no_history(module: Tied) -> None:
    history = {name: 2 * value for name, value in select(module).items()}
    for name, value in leaves(history).items():
        assert value.is_leaf and value.requires_grad and torch.equal(value, history[name])


def test_the_norm_is_that_of_all_entries_together(module: Tied) -> None:
    everything = [value for _, value in module.named_parameters()]
    torch.testing.assert_close(norm(everything), torch.cat([v.detach().flatten() for v in everything]).norm())
    assert norm([]) == 0
