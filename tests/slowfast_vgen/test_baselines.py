"""What is given beside the last chunk."""

import pytest
import torch

from slowfast_vgen.baselines import beside
from slowfast_vgen.settings import Context
from slowfast_vgen.stages import slow_batch_loss, training_episodes
from tests.slowfast_vgen.small import parts

PLACES = torch.tensor([[0, 1, 2, 3, 2, 1, 0]])  # three chunks out and back
Z = torch.tensor([0.0, 10, 20, 30, 20, 10, 0]).view(1, 7, 1, 1, 1, 1).expand(1, 7, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("rule", "chunk", "given"),
    [
        (Context.longer, 5, 3), (Context.anchor, 5, 0), (Context.retrieval, 5, 2), (Context.oracle, 5, 1),
        (Context.longer, 1, 0), (Context.oracle, 1, 0), (Context.oracle, 6, 0), (Context.retrieval, 4, 2),
        (Context.oracle, 2, 1),
    ],
)  # fmt: skip
def test_each_rule_gives_its_chunk(rule: Context, chunk: int, given: int) -> None:
    assert beside(rule, Z, PLACES, chunk).equal(Z[:, given])


def test_what_is_generated_is_never_given() -> None:
    for name in ("retrieval", "oracle", "anchor", "longer_window"):
        found, config = parts(f"method={name}")
        there = training_episodes(found, config, 1)
        before = there.past(4)
        there.z[:, 4:] = float("nan")
        assert there.past(4).equal(before) and before.shape[1] == 4


def test_slow_learning_sees_windows_of_three_chunks() -> None:
    found, config = parts("method=retrieval")
    shapes = []
    own = found.network.forward
    found.network.forward = lambda x, *rest: shapes.append(x.shape[1]) or own(x, *rest)
    assert slow_batch_loss(found, config, 1).isfinite() and shapes == [6]
