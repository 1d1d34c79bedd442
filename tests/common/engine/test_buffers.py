"""Stacks of different tasks that bring buffers of their own, against a loop over the tasks; and their average."""

import re
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.rules import SGD, Momentum, UpdateRule
from common.engine.settings import Unroll
from common.engine.weights import Weights, averaged, buffers_of, call, leaves, select, stack, stack_of, unstack

CLIENTS = 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
F = nn.functional


def network_of(momentum: float | None = 0.1) -> nn.Module:
    """Two convolutions with batch norm, in training mode."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=momentum), nn.ReLU()),
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    )
    return net.double().train()


@pytest.fixture
def clients() -> list[nn.Module]:
    """Of different weights and running statistics."""
    found = [network_of() for _ in range(CLIENTS)]
    for client in found:
        for _ in range(2):
            client(torch.randn(7, 1, 8, 8, dtype=torch.double))
    return found


def data() -> tuple[Tensor, Tensor]:
    """Images [clients, 6, 1, 8, 8] and labels."""
    return torch.randn(CLIENTS, 6, 1, 8, 8, dtype=torch.double), torch.randint(5, (CLIENTS, 6))


def of_client(network: nn.Module, weights: Weights, buffers: Weights, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(call(network, {**weights, **buffers}, x), y)


def test_stacked_clients_with_batch_norm_are_a_loop_over_them(clients: list[nn.Module]) -> None:
    """Outputs, gradients and the new running statistics of four; the module that is called keeps its own."""
    network, (x, _) = network_of(), data()
    own = {name: value.clone() for name, value in network.state_dict().items()}
    weights = leaves(stack_of([select(client) for client in clients]))
    buffers = stack_of([buffers_of(client) for client in clients])

    outputs = torch.func.vmap(lambda w, b, x: call(network, {**w, **b}, x))(weights, buffers, x)
    gradients = dict(zip(weights, torch.autograd.grad(outputs.sin().sum(), list(weights.values())), strict=True))
    for task, client in enumerate(clients):
        theirs = client(x[task])
        theirs.sin().sum().backward()
        torch.testing.assert_close(outputs[task], theirs, **CLOSE)
        torch.testing.assert_close(unstack(buffers, task), dict(client.named_buffers()), **CLOSE)
        wanted = {name: p.grad for name, p in client.named_parameters()}
        torch.testing.assert_close(unstack(gradients, task), wanted, **CLOSE)
    assert buffers["1.num_batches_tracked"].tolist() == [3] * CLIENTS
    assert buffers["1.num_batches_tracked"].dtype == torch.int64
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("rule", [SGD(), Momentum()], ids=repr)
def test_stacked_clients_learn_as_each_does_alone(clients: list[nn.Module], rule: UpdateRule) -> None:
    network, (x, y) = network_of(), data()
    buffers = stack_of([buffers_of(client) for client in clients])

    def together(weights: Weights, _: object) -> Tensor:
        losses: Tensor = torch.func.vmap(lambda w, b, x, y: of_client(network, w, b, x, y))(weights, buffers, x, y)
        return losses

    how = {"steps": 3, "rule": rule, "rates": 0.1, "unroll": Unroll.none}
    found = adapt(together, stack_of([select(client) for client in clients]), **how)  # type: ignore[arg-type]
    for task, client in enumerate(clients):
        own = buffers_of(client)

        def alone(weights: Weights, _: object, task: int = task, own: Weights = own) -> Tensor:
            return of_client(network, weights, own, x[task], y[task])

        wanted = adapt(alone, select(client), **how)  # type: ignore[arg-type]
        torch.testing.assert_close(unstack(found.weights, task), wanted.weights, **CLOSE)
        torch.testing.assert_close([loss[task] for loss in found.losses], wanted.losses, **CLOSE)
        torch.testing.assert_close(unstack(buffers, task), own, **CLOSE)
        assert own["1.num_batches_tracked"] == 5


def test_buffers_that_are_not_given_are_the_modules_own(clients: list[nn.Module]) -> None:
    client, x = clients[0], torch.randn(6, 1, 8, 8, dtype=torch.double)
    twin = deepcopy(client)
    given = buffers_of(client)
    part = {name: value for name, value in given.items() if name.startswith("1.")}
    torch.testing.assert_close(call(client, part, x), twin(x), **CLOSE)
    own, wanted = dict(client.named_buffers()), dict(twin.named_buffers())
    for name in own:
        torch.testing.assert_close(part[name] if name in part else own[name], wanted[name], **CLOSE)
    assert own["1.num_batches_tracked"] == 2 and part["1.num_batches_tracked"] == 3, "written to once, and there"


def test_names_that_are_neither_parameters_nor_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("BatchNorm1d has no parameter or buffer ['running_men']")):
        call(nn.BatchNorm1d(3), {"running_men": torch.ones(3)}, torch.randn(2, 3))


def test_a_stack_without_memory_of_its_own_cannot_hold_running_statistics() -> None:
    """torch's own refusals, so that no client's statistics are lost in silence."""
    module, x = nn.BatchNorm1d(3), torch.randn(CLIENTS, 9, 3)
    weights = stack(select(module), CLIENTS)
    for buffers, axis in ((stack(buffers_of(module), CLIENTS), 0), (buffers_of(module), None)):
        with pytest.raises(RuntimeError, match="refers to a single memory location|were not batched"):
            torch.func.vmap(lambda w, b, x: call(module, {**w, **b}, x), in_dims=(0, axis, 0))(weights, buffers, x)


# ---- stacks of different tasks, and their average


def drawn(tasks: int) -> list[Weights]:
    return [{"w": torch.randn(33, 7), "count": torch.tensor(task)} for task in range(tasks)]


def test_a_stack_of_different_weights_is_undone_by_unstack_and_passes_gradients_on() -> None:
    tasks = [{"w": torch.randn(2, 3, requires_grad=True)} for _ in range(3)]
    stacked = stack_of(tasks)
    for task, weights in enumerate(tasks):
        assert torch.equal(unstack(stacked, task)["w"], weights["w"])
    found = torch.autograd.grad(
        (stacked["w"] * torch.tensor([1.0, 2, 4])[:, None, None]).sum(), [t["w"] for t in tasks]
    )
    assert [g.unique().tolist() for g in found] == [[1.0], [2.0], [4.0]]
    with pytest.raises(ValueError, match=re.escape("task 1 has the names ['v'], and task 0 ['w']")):
        stack_of([{"w": torch.ones(1)}, {"v": torch.ones(1)}])


def test_the_average_has_the_same_bits_however_the_stack_is_cut() -> None:
    tasks, shares = drawn(5), [0.1, 0.3, 0.15, 0.25, 0.2]
    whole = averaged(stack_of(tasks), shares)
    exact = torch.stack([share * task["w"].double() for share, task in zip(shares, tasks, strict=True)]).sum(0)
    torch.testing.assert_close(whole["w"].double(), exact, rtol=0, atol=1e-6)
    for size in (1, 2, 3, 5):
        total: Weights | None = None
        for first in range(0, 5, size):
            before = None if total is None else total["w"].clone()
            chunk = averaged(stack_of(tasks[first : first + size]), shares[first : first + size], into=total)
            assert total is None or torch.equal(total["w"], before), "the sum so far is not written to"
            total = chunk
        assert total is not None and torch.equal(total["w"], whole["w"])
        assert total["count"].dtype == torch.int64 and total["count"] == whole["count"] == 4
    assert not torch.equal(averaged(stack_of(tasks[::-1]), shares[::-1])["w"], whole["w"]), "the order is in the bits"


def test_the_average_is_differentiable_and_needs_a_share_a_task() -> None:
    w = torch.randn(3, 2, requires_grad=True)
    (found,) = torch.autograd.grad(averaged({"w": w}, [0.5, 0.25, 0.25])["w"].sum(), [w])
    assert found[:, 0].tolist() == [0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="w is a stack of 3 tasks, and there are 2 shares"):
        averaged({"w": w}, [0.5, 0.5])


def test_half_precision_is_added_up_in_float32() -> None:
    ones = {"w": torch.ones(2000, 1, dtype=torch.bfloat16)}
    assert averaged(ones, [1 / 2000] * 2000)["w"].item() == pytest.approx(1, abs=1e-4)


def test_no_task_is_no_stack() -> None:
    with pytest.raises(ValueError, match="a stack of no tasks"):
        stack_of([])
    with pytest.raises(ValueError, match="an average of no tasks"):
        averaged({"w": torch.empty(0, 1)}, [])
