"""Writing rows into fast weights: what stands in the tensors, which steps are taken, and what the caller may choose."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.cuda import graphs
from common.engine.cuda.graphs import GraphedDescent
from common.engine.inner import adapt
from common.engine.rates import LearnedRates, make_rates
from common.engine.settings import InnerConfig, Unroll
from common.engine.weights import Weights, stack
from common.errors import UserError
from common.language import model as models
from common.language.batch import Row, Rows
from common.language.config import LoraConfig, ModelConfig
from common.language.model import LanguageModel
from common.language.objective import mean_loss
from common.language.writer import Writer

LONG = [Row((3, 4, 5, 6), 1), Row((7, 8), 0), Row((9, 3, 4), 2)]
SHORT = [Row((5, 6, 7), 0)]
PAD = 1


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """In float64, on the CPU."""
    return model_of(torch.device("cpu"), torch.float64)


def model_of(device: torch.device, dtype: torch.dtype, *, autocast: bool = False) -> LanguageModel:
    """A GPT-2 of one layer with LoRA whose B is not zero."""
    torch.manual_seed(0)
    config = ModelConfig(dropout=0.0, lora=LoraConfig(rank=2, alpha=2, dropout=0.0))
    found = models.of_shape(1, 8, 2, 13, 8, config, device=device, dtype=dtype, autocast=autocast)
    for name, parameter in found.network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return found


def writer_of(
    model: LanguageModel, *, others: Any = (), inner_steps: int = 0, capture: bool = False, **inner: Any
) -> Writer:
    config = InnerConfig(**{"steps": 2, "lr": 0.05, **inner})
    names = [name for name, p in model.network.named_parameters() if p.requires_grad]
    rates = make_rates(config, names).to(next(model.network.parameters()))
    loss = lambda weights, rows: mean_loss(model.losses, weights, rows)  # noqa: E731
    return Writer(model, rates, config, loss, pad=PAD, others=others, inner_steps=inner_steps, capture=capture)


def same(found: Weights, expected: Weights) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_rows_of_one_task_and_of_a_stack(model: LanguageModel) -> None:
    alone = writer_of(model).rows([LONG], [[0.5, 0.2, 0.3]])
    assert alone.ids.tolist() == [[3, 4, 5, 6], [7, 8, PAD, PAD], [9, 3, 4, PAD]]
    assert alone.scored.tolist() == [[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert alone.weight.tolist() == [0.5, 0.2, 0.3] and alone.weight.dtype == torch.float64
    both = writer_of(model, stack=True).rows([LONG, SHORT])
    assert both.ids.shape == (2, 3, 4) and both.ids[1].tolist() == [[5, 6, 7, PAD], [PAD] * 4, [PAD] * 4]
    assert both.weight.tolist() == [pytest.approx([1 / 3] * 3), [1, 0, 0]]


def test_the_fast_weights_are_those_that_learn_and_a_start_is_no_copy(model: LanguageModel) -> None:
    writer = writer_of(model)
    assert writer.slow and all("lora_" in name and p.requires_grad for name, p in writer.slow.items())
    assert writer.start(1) is writer.slow
    stacked = writer_of(model, stack=True).start(3)
    assert {name: tuple(w.shape) for name, w in stacked.items()} == {
        name: (3, *w.shape) for name, w in writer.slow.items()
    }
    assert all(stacked[name].data_ptr() == w.data_ptr() for name, w in writer.slow.items())
    with pytest.raises(UserError, match="are frozen by model.lora"):
        writer_of(model, weights=["*.wte.*"])


def test_writing_is_adapting_and_touches_no_weight(model: LanguageModel) -> None:
    writer = writer_of(model)
    rows, before = writer.rows([LONG]), {name: p.detach().clone() for name, p in model.network.named_parameters()}
    written = writer.write(rows, tasks=1, training=True)
    by_hand = adapt(writer.loss, writer.slow, [rows], steps=2, rule=writer.rule, rates=writer.rates)
    assert same(written.weights, by_hand.weights) and len(written.losses) == 2
    assert all(w.requires_grad for w in written.weights.values())
    tested = writer.write(rows, tasks=1, training=False)
    for name, value in tested.weights.items():
        torch.testing.assert_close(value, written.weights[name].detach(), rtol=1e-12, atol=1e-14)
        assert not value.requires_grad
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.network.named_parameters())


def test_test_time_may_take_more_steps_and_smaller_parts(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    writer = writer_of(model, inner_steps=3, micro_batch=2)
    plain = writer.loss
    monkeypatch.setattr(writer, "loss", lambda weights, rows: (sizes.append(len(rows.ids)), plain(weights, rows))[1])
    rows = writer.rows([LONG])
    training = writer.write(rows, tasks=1, training=True)
    assert sizes == [2, 1] * 2 and len(training.losses) == 2
    sizes.clear()
    tested = writer.write(rows, tasks=1, training=False, micro_batch=1)
    assert sizes == [1, 1, 1] * 3 and len(tested.losses) == 3
    sizes.clear()
    assert len(writer.write(rows, tasks=1, training=True, micro_batch=0).losses) == 2 and sizes == [3] * 2


def test_more_text_is_written_on_top_of_earlier_text(model: LanguageModel) -> None:
    """The rule's state starts fresh, as for every text."""
    writer = writer_of(model)
    first, second = writer.rows([LONG]), writer.rows([SHORT])
    held = writer.write(first, tasks=1, training=False).weights
    both = writer.write(second, tasks=1, training=False, start=held)
    by_hand = adapt(writer.loss, held, [second], steps=2, rule=writer.rule, rates=writer.rates, unroll=Unroll.none)
    assert same(both.weights, by_hand.weights)
    assert not same(both.weights, writer.write(second, tasks=1, training=False).weights)


def by_hand(run: Callable[[], Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
    """Stands for `graphs.record` where there is no GPU: runs again, into the same tensors."""
    found = run()

    def again() -> None:
        (fast, _, losses), (new_fast, _, new_losses) = found, run()
        for mine, new in zip([*fast.values(), *losses], [*new_fast.values(), *new_losses], strict=True):
            mine.copy_(new)

    return found, again


def check_capture(model: LanguageModel, captured: Writer, monkeypatch: pytest.MonkeyPatch, record: Any) -> None:
    """Test-time writing with and without a recording, and when there is another one."""
    recorded: list[bool] = []
    monkeypatch.setattr(graphs, "record", lambda *args: recorded.append(model.network.training) or record(*args))
    model.network.eval()
    plain = writer_of(model)

    def compare(*tasks: list[Row], start: Weights | None = None) -> Weights:
        given = {"tasks": 1, "training": False, "start": start}
        rows = captured.rows(tasks)
        found, wanted = captured.write(rows, **given), plain.write(rows, **given)
        torch.testing.assert_close(found.weights, wanted.weights, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-5, atol=1e-7)
        return found.weights

    held = compare(LONG)
    compare([Row((4, 4, 5, 9), 1), *LONG[1:]])
    compare(LONG, start=held)
    assert recorded == [False], "rows of the same shape are replayed"
    compare(SHORT)
    assert recorded == [False, False]
    captured.write(captured.rows([LONG]), tasks=1, training=True)
    assert recorded == [False, False], "an outer gradient needs the steps themselves"
    model.network.train()
    compare(SHORT)
    assert recorded == [False, False, True], "a recording holds the mode of the network"
    model.network.eval()
    compare(SHORT)
    assert len(recorded) == 3


def test_test_time_steps_are_recorded_once_for_a_shape_of_rows(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_refuse_elsewhere", lambda tensors: None)
    captured = writer_of(model, capture=True)
    assert not captured.descents, "on a CPU the steps are taken one by one: a run on a GPU may be evaluated here"
    captured.descents = {mode: GraphedDescent() for mode in (True, False)}
    check_capture(model, captured, monkeypatch, by_hand)


@pytest.mark.cuda
@pytest.mark.parametrize("autocast", [False, True])
def test_test_time_steps_are_replayed_on_a_gpu(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(torch.device("cuda"), torch.float32, autocast=autocast)
    check_capture(model, writer_of(model, capture=True), monkeypatch, graphs.record)


def test_a_stack_is_written_as_its_tasks_are(model: LanguageModel) -> None:
    writer = writer_of(model, stack=True)
    together = writer.write(writer.rows([LONG, SHORT]), tasks=2, training=False)
    for task, rows in enumerate((LONG, SHORT)):
        alone = writer_of(model)
        expected = alone.write(alone.rows([rows]), tasks=1, training=False).weights
        for name, value in expected.items():
            torch.testing.assert_close(together.weights[name][task], value, rtol=1e-12, atol=1e-14)
    held = stack(writer.slow, 2)
    assert same(writer.write(writer.rows([LONG, SHORT]), tasks=2, training=False, start=held).weights, together.weights)


def test_what_else_learns_is_named_to_rebuilt_steps(model: LanguageModel) -> None:
    factor = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def outer(unroll: Unroll, named: bool) -> Tensor:
        writer = writer_of(model, unroll=unroll, others=[factor] if named else [])
        plain = writer.loss
        writer.loss = lambda weights, rows: factor * plain(weights, rows)
        fast = writer.write(writer.rows([LONG]), tasks=1, training=True).weights
        found, *_ = torch.autograd.grad(plain(fast, writer.rows([SHORT])), [factor, *writer.slow.values()])
        return found

    torch.testing.assert_close(outer(Unroll.recompute, True), outer(Unroll.stored, False), rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="name it in adapt"):
        outer(Unroll.recompute, False)


@pytest.mark.parametrize(("gigabytes", "expected"), [(1000.0, Unroll.stored), (1e-9, Unroll.recompute)])
def test_auto_is_settled_by_the_budget(model: LanguageModel, gigabytes: float, expected: Unroll) -> None:
    writer = writer_of(model, unroll=Unroll.auto, memory_gb=gigabytes)
    rows = writer.rows([LONG])
    writer.plan(rows, 1, lambda fast: mean_loss(model.losses, fast, rows))
    assert writer.unroll is expected


def test_stacking_is_given_up_where_one_task_is_work_enough(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Rows] = []
    for pays in (True, False):
        monkeypatch.setattr(
            "common.language.writer.stacking_pays",
            lambda loss, start, rows, device, *, shared, pays=pays: asked.append(rows) or pays,
        )
        writer = writer_of(model, stack=True)
        writer.stack_if_it_pays(LONG)
        assert writer.stacked is pays
    singly = writer_of(model)
    singly.stack_if_it_pays(LONG)
    assert not singly.stacked and len(asked) == 2, "nobody asks where no stack is wanted"


def test_rates_without_a_weight_are_refused(model: LanguageModel) -> None:
    writer = writer_of(model)
    writer.rates = LearnedRates(["other"], steps=2, start=0.1)
    with pytest.raises(ValueError, match="no inner rate for"):
        writer.write(writer.rows([LONG]), tasks=1, training=True)
