"""The benchmark of fast learning compares what does the same, and says what it misses."""

import pytest
import torch

from common.engine.settings import Unroll
from common.errors import UserError
from scripts.benchmark.case_results import Result
from scripts.benchmark.running import MISSED
from scripts.benchmark.slowfast_bench import Bench
from scripts.benchmark.slowfast_groups import META, PLAIN, STACK, STACKED, STORED, Case, groups
from scripts.benchmark.slowfast_notes import fast_lines, memory_lines
from scripts.benchmark.slowfast_others import Plain


def test_a_stack_is_the_episodes_one_by_one() -> None:
    bench = Bench(Case(STACK, STACKED, 3, draws=2), torch.float64)
    together, alone = bench.written().weights, bench.one_by_one().weights
    assert together.keys() == alone.keys()
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], atol=1e-9, rtol=1e-6)
        assert value.abs().sum() > 0


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute])
def test_the_loop_in_plain_torch_has_our_gradient(unroll: Unroll) -> None:
    benches = [Bench(Case(META, engine, 2, draws=2), torch.float64) for engine in (STORED, PLAIN)]
    benches[0].outer(unroll)
    Plain(benches[1]).outer()
    pairs = list(zip(*(bench.learners for bench in benches), strict=True))
    assert len(pairs) > 20
    for mine, plain in pairs:
        torch.testing.assert_close(mine.grad, plain.grad, atol=1e-10, rtol=1e-6)
    through = [w.grad for name, w in benches[0].network.named_parameters() if "lora_A" in name]
    assert through and all(g is not None and g.abs().sum() > 0 for g in through), "A learns through the fast steps"


def test_more_than_a_tenth_of_sampling_is_said_to_be_missed() -> None:
    def lines(learn: float) -> str:
        took = {"sample, 50 steps": 1.0, "learn, 1 draw(s)": learn}
        return "\n".join(fast_lines((50,), (1,), {name: Result(seconds=(own,)) for name, own in took.items()}))

    assert "+9.0%" in lines(0.09) and MISSED not in lines(0.09)
    assert MISSED in lines(0.12)
    assert "not computed" in "\n".join(fast_lines((50,), (1,), {}))
    assert memory_lines(("slow",), {"slow": Result(seconds=(1.0,), peak=5 * 10**9)})[0].startswith("slow 5.0 GB")


def test_every_group_has_its_reference() -> None:
    for each in (groups(), groups(quick=True)):
        assert all(group.rows[0].against == group.rows[0].label for group in each)
        assert {group.name for group in each} >= {"fast_1", "stack", "meta_2", "backbone"}
    with pytest.raises(UserError, match="work=meta, engine=stacked: nothing to measure"):
        Case(META, STACKED)
