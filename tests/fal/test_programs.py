"""What a program gives is what it was traced from, for other values too."""

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from common.engine.weights import call, select, stack
from fal.programs import Programs
from fal.shortening import shorten
from tests.fal.small import apart, federation, trained


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_rounds_by_captured_programs_are_those_without(kind: str) -> None:
    """A graph copies its tensors in, so the second step and the next clients must not see those of the first."""
    here, there = federation(kind=kind), federation(kind=kind)
    for found in (here, there):
        found.local.network.modes = {mode: net.cuda() for mode, net in found.local.network.modes.items()}
        found.images = found.images[0].cuda(), found.images[1].cuda()
        found.server.weights = {name: w.cuda() for name, w in found.server.weights.items()}
        found.clients = [type(c)(c.number, c.indices.cuda(), c.log_counts.cuda()) for c in found.clients]
    there.local.network.programs.captured = True
    assert apart(trained(here), trained(there)) < 1e-12
    assert all(hasattr(program, "again") for program in there.local.network.programs._made.values())


def test_a_program_is_kept_for_its_shapes() -> None:
    found = federation(batch=3)
    found.round(1)
    made = dict(found.local.network.programs._made)
    found.round(2)
    assert len(made) == 2 and found.local.network.programs._made == made  # the attack's and the steps'


def test_steps_by_a_program_are_those_by_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained(federation("mart", kind="cnn"))

    def untraced(*_: object, **__: object) -> None:
        raise RuntimeError("not traced")

    monkeypatch.setattr("fal.programs.make_fx", untraced)
    assert apart(trained(federation("mart", kind="cnn")), found) < 1e-12


def traced() -> tuple[GraphModule, tuple[Tensor, ...]]:
    """A stack of three networks by `vmap`, with its gradient by the points."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    weights = {name: w + torch.rand(3, *w.shape) for name, w in stack(select(net), 3).items()}

    def of_points(x: Tensor, *own: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            found = torch.func.vmap(lambda w, one: call(net, w, (one,)))(dict(zip(weights, own, strict=True)), at)
            value = found.logsumexp(-1)
            return torch.autograd.grad(value.sum(), at)[0], value.detach()

    x = torch.rand(3, 5, 1, 6, 6)
    with torch.no_grad():
        return make_fx(of_points)(x, *weights.values()), (x, *(w.detach() for w in weights.values()))


def test_a_shortened_program_has_neither_views_of_views_nor_products_with_1_and_gives_the_same_bits() -> None:
    program, tensors = traced()
    before, operations = program(*tensors), len(program.graph.nodes)
    shorten(program.graph)
    program.graph.eliminate_dead_code()
    program.recompile()
    after = program(*tensors)
    assert all(one.equal(other) and one.stride() == other.stride() for one, other in zip(before, after, strict=True))
    assert len(program.graph.nodes) < 0.7 * operations
    assert not program.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Scalar)
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            assert node.args[0].target is not torch.ops.aten.view.default


def test_a_program_that_writes_to_a_tensor_or_gives_one_back_is_not_shortened_there() -> None:
    def writes(x: Tensor) -> Tensor:
        return torch.ops.aten.mul.Scalar(x, 1).add_(1)

    def gives_back(x: Tensor) -> Tensor:
        return torch.ops.aten.mul.Scalar(x, 1).view(-1)

    for function in (writes, gives_back):
        x = torch.ones(2, 3)
        program = Programs().of(function.__name__, function, x)
        program(x).add_(1)
        assert x.equal(torch.ones(2, 3))
