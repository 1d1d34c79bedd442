"""A network has its own tensors back whatever happens; what a backward pass runs again has the swapped ones."""

import copy
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from common.engine.inner import adapt
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights, call, select, stack
from common.errors import UserError

EXACT = (Unroll.stored, Unroll.recompute)


def places(module: nn.Module) -> dict[str, Tensor]:
    """Every name of every tensor, several names of one included."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(4, 4)
        self.enc2 = self.enc
        self.layers = nn.ModuleList([nn.Linear(4, 4)] * 3)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.layers[0].weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.enc, *self.layers, self.enc2, self.head):
            x = torch.tanh(layer(x))
        return x


class Checkpointed(nn.Module):
    def __init__(self, on: bool, reentrant: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.on, self.reentrant = nn.Linear(4, 4), nn.Linear(4, 4), on, reentrant

    def block(self, x: Tensor) -> Tensor:
        return self.b(torch.nn.functional.dropout(torch.tanh(self.a(x)), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint.checkpoint(self.block, x, use_reentrant=self.reentrant) if self.on else self.block(x)


@pytest.fixture(autouse=True)
def double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("fails", [False, True])
def test_a_layer_under_several_names_has_its_own_weights_back(fails: bool) -> None:
    net = Shared()
    if fails:
        net.head.register_forward_hook(lambda *_: 1 / 0)
    before, x = places(net), torch.randn(3, 4)
    weights = {name: w.detach() * 2 for name, w in select(net).items()}
    if fails:
        with pytest.raises(ZeroDivisionError):
            call(net, weights, x)
    else:
        twice = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in twice.parameters():
                parameter.mul_(2)
        assert call(net, weights, x).equal(twice(x))
    after = places(net)
    assert before.keys() == after.keys() and all(after[name] is before[name] for name in before)


def test_a_plain_list_and_a_closure_have_their_own_weights_back() -> None:
    weight = nn.Parameter(torch.eye(4))

    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ weight + self.kept[0]["b"]

    net = Net(4, 4)
    net.weight2, net.kept = weight, [{"b": net.bias}]
    kept, x = net.kept, torch.ones(1, 4)
    found = call(net, {name: w.detach() * 2 for name, w in select(net).items()}, x)
    torch.testing.assert_close(found, (2 * (x @ net.weight.T) + 2 * net.bias) @ (2 * weight) + 2 * net.bias)
    assert net.kept is kept and kept[0]["b"] is net.bias
    cells = dict(zip(Net.forward.__code__.co_freevars, Net.forward.__closure__ or (), strict=True))
    assert cells["weight"].cell_contents is weight is net.weight2


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_network_that_writes_to_its_weights_is_refused_and_has_them_back(hidden: bool, fails: bool) -> None:
    class Clamping(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                (self.weight.data if hidden else self.weight).clamp_(-0.1, 0.1)
            if fails:
                raise ZeroDivisionError
            return super().forward(x)

    net, x = Clamping(4, 4), torch.ones(1, 4)
    before = net.weight.detach().clone()
    with pytest.raises(ZeroDivisionError if fails else UserError, match=None if fails else "writes to the weight"):
        adapt(lambda w, _: call(net, w, x).sum(), select(net), steps=2, rule=SGD(), rates=0.1)
    assert net.weight.equal(before)


def test_two_tensors_for_one_tied_weight_are_refused() -> None:
    net = Shared()
    one = torch.zeros(4, 4)
    assert call(net, {"head.weight": one, "layers.1.weight": one}, torch.ones(1, 4)).shape == (1, 4)
    with pytest.raises(UserError, match=r"head\.weight and layers\.1\.weight are one weight of Shared, tied"):
        call(net, {"head.weight": one, "layers.1.weight": one + 1}, torch.ones(1, 4))


def test_a_recurrent_layer_keeps_no_fast_weight_and_can_be_copied() -> None:
    net = nn.LSTM(4, 4)
    call(net, {name: w * 2 for name, w in select(net).items()}, torch.randn(3, 4))
    assert all(a is b for a, b in zip(net._flat_weights, net.parameters(), strict=True))
    copy.deepcopy(net)


def test_a_network_within_itself_is_no_endless_walk() -> None:
    net = nn.Linear(4, 4)
    net.register_module("again", net)
    weights = {"weight": torch.eye(4), "bias": torch.zeros(4)}
    assert call(net, weights, torch.ones(1, 4)).equal(torch.ones(1, 4))


def outer_gradient(net: nn.Module, unroll: Unroll, x: Tensor) -> list[Tensor]:
    torch.manual_seed(0)
    start = select(net)

    def loss(weights: Weights, part: Tensor) -> Tensor:
        return call(net, weights, part).square().mean()

    adapted = adapt(loss, start, (x, x + 1), steps=2, rule=SGD(), rates=0.1, unroll=unroll)
    return list(torch.autograd.grad(loss(adapted.weights, x), list(start.values())))


@pytest.mark.parametrize("unroll", EXACT)
def test_activation_checkpointing_changes_no_gradient(unroll: Unroll) -> None:
    plain, checkpointed = Checkpointed(False), Checkpointed(True)
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(5, 4)
    for expected, found in zip(outer_gradient(plain, unroll, x), outer_gradient(checkpointed, unroll, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_checkpointed_network_outside_a_call_is_torchs_own() -> None:
    for reentrant in (False, True):
        net, x = Checkpointed(True, reentrant), torch.randn(5, 4, requires_grad=True)
        net(x).sum().backward()
        assert net.a.weight.grad is not None


def test_reentrant_checkpointing_is_refused_within_a_call_alone() -> None:
    net, x = Checkpointed(True, reentrant=True), torch.randn(5, 4, requires_grad=True)
    with pytest.raises(UserError, match="use_reentrant=False"):
        call(net, select(net), x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_layer_is_refused_in_words() -> None:
    net = nn.Sequential(torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(UserError, match="scripted"):
        call(net, select(net), torch.ones(1, 4))


def test_a_network_over_several_devices_is_refused_in_words() -> None:
    net = nn.DataParallel(nn.Linear(4, 4))
    weights = select(net)
    call(net, weights, torch.ones(1, 4))  # on none or one it is the network itself
    net.device_ids = [0, 1]
    with pytest.raises(UserError, match=r"DataParallel.*its \.module"):
        call(net, weights, torch.ones(1, 4))


def test_threads_that_share_a_layer_do_not_see_each_others_weights() -> None:
    layer = nn.Linear(4, 4)
    nets = [nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 4)) for _ in range(2)]
    x = torch.randn(3, 4)

    def adapted(index: int) -> Tensor:
        net = nets[index % 2]
        found = adapt(
            lambda w, _: (call(net, w, x) - index).square().mean(), select(net), steps=3, rule=SGD(), rates=0.1
        )
        return call(net, found.weights, x).detach()

    expected = [adapted(index) for index in range(32)]
    found: dict[int, Tensor] = {}

    def work(first: int) -> None:
        for index in range(first, 32, 4):
            found[index] = adapted(index)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[index].equal(expected[index]) for index in range(32))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("hooked", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_weight_that_a_hook_writes_is_put_back(hooked: Callable[[nn.Module], nn.Module]) -> None:
    layer = hooked(nn.Linear(4, 4))
    before, value = layer.weight, layer.weight.detach().clone()
    call(layer, {name: w * 2 for name, w in select(layer).items()}, torch.ones(1, 4))
    assert layer.weight is before and torch.equal(layer.weight, value)


def test_cached_parametrisations_are_refused() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with nn.utils.parametrize.cached(), pytest.raises(UserError, match=r"parametrize.cached\(\) is on"):
        call(layer, select(layer), torch.ones(1, 4))


@pytest.mark.parametrize("unroll", EXACT)
def test_checkpointing_under_vmap_is_refused(unroll: Unroll) -> None:
    network = Checkpointed(on=True).eval()

    def loss(weights: Weights, _: object) -> Tensor:
        return torch.func.vmap(lambda w: call(network, w, torch.ones(1, 4)).sum())(weights)

    with pytest.raises(UserError, match="an activation checkpoint inside a network that runs for a stack"):
        adapt(loss, stack(select(network), 2), steps=1, rule=SGD(), rates=0.1, unroll=unroll)


def test_a_network_that_yields_is_refused() -> None:
    class Yielding(nn.Linear):
        def forward(self, x: Tensor) -> Iterator[Tensor]:  # type: ignore[override]
            yield super().forward(x)

    network = Yielding(4, 4)
    with pytest.raises(UserError, match="Yielding yields its results"):
        call(network, select(network), torch.ones(1, 4))
