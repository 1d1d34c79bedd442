"""What a program gives is what it was traced from, for other values too."""

import pytest
import torch
from torch import Tensor
from torch.fx import Graph

from fal.federation import Federation
from fal.programs import Programs
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


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_without_views_of_views_and_products_with_1_the_bits_are_the_same(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def graphs(found: Federation) -> list[Graph]:
        made = found.local.network.programs._made.values()
        return [program.__self__.graph for program in made]  # type: ignore[attr-defined]

    short, whole = federation(kind=kind), federation(kind=kind)
    found = trained(short)
    monkeypatch.setattr("fal.programs.shorten", lambda graph: None)
    assert apart(found, trained(whole)) == 0.0
    for graph, before in zip(graphs(short), graphs(whole), strict=True):
        assert len(graph.nodes) < 0.85 * len(before.nodes)
        views = graph.find_nodes(op="call_function", target=torch.ops.aten.view.default)
        assert not any(view.args[0] in views for view in views)


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
