"""`rates.json`: what is kept of learned rates, also across a restart, and the maps made of it."""

import json
from pathlib import Path

import pytest
import torch

from common.engine.rates import LearnedRates
from common.engine.settings import RateGroup, RateSpace
from common.errors import UserError
from common.run import rate_record

NAMES = ["wte.weight", "h.0.attn.weight", "h.0.attn.bias", "h.1.attn.weight"]


def rates_at(*values: float, per: RateGroup = RateGroup.tensor, space: RateSpace = RateSpace.raw) -> LearnedRates:
    """Two inner steps; row r has values[r] in the first and its double in the second."""
    rates = LearnedRates(NAMES, steps=2, start=0.1, per=per, space=space)
    wanted = torch.tensor(values)[:, None] * torch.tensor([1.0, 2.0])
    rates.numbers.data = wanted.log() if space is RateSpace.exp else wanted
    return rates


def test_the_file_has_the_form_that_its_module_describes(tmp_path: Path) -> None:
    rate_record.note(tmp_path, 0, rates_at(0.1, 0.2, 0.4, -0.5))
    rate_record.note(tmp_path, 10, rates_at(0.3, 0.2, 0.4, -0.5))
    rate_record.select(tmp_path, 10)
    found = json.loads((tmp_path / "rates.json").read_text())
    assert found == {
        "schema": 1,
        "names": NAMES,
        "layers": ["wte", "h.0", "h.0", "h.1"],
        "selected": 10,
        "records": [
            {"step": 0, "values": [[0.1, 0.2], [0.2, 0.4], [0.4, 0.8], [-0.5, -1.0]]},
            {"step": 10, "values": [[0.3, 0.6], [0.2, 0.4], [0.4, 0.8], [-0.5, -1.0]]},
        ],
    }


def test_rates_are_kept_whatever_the_space_they_are_learned_in(tmp_path: Path) -> None:
    rate_record.note(tmp_path, 0, rates_at(0.1, 0.2, 0.3, 0.4, space=RateSpace.exp))
    found = rate_record.read(tmp_path)
    assert found is not None and found.at(0)[3] == pytest.approx([0.4, 0.8], rel=1e-6)


def test_a_row_a_layer_is_named_by_its_layer(tmp_path: Path) -> None:
    rate_record.note(tmp_path, 0, rates_at(0.1, 0.2, 0.3, per=RateGroup.layer))
    found = rate_record.read(tmp_path)
    assert found is not None and found.names == found.layers == ["wte", "h.0", "h.1"]


def test_steps_that_come_again_replace_their_records(tmp_path: Path) -> None:
    for step in (0, 5, 10):
        rate_record.note(tmp_path, step, rates_at(1, 1, 1, 1))
    rate_record.select(tmp_path, 10)
    rate_record.note(tmp_path, 5, rates_at(2, 2, 2, 2))  # continued after a checkpoint before step 5
    found = rate_record.read(tmp_path)
    assert found is not None and [record["step"] for record in found.records] == [0, 5]
    assert found.selected is None and found.at() == [[2, 4]] * 4


def test_the_tested_rates_are_the_selected_ones_and_the_last_until_then(tmp_path: Path) -> None:
    for step in (0, 5, 10):
        rate_record.note(tmp_path, step, rates_at(step, step, step, step))
    for selected, expected in ((None, 10), (5, 5)):
        if selected is not None:
            rate_record.select(tmp_path, selected)
        found = rate_record.read(tmp_path)
        assert found is not None and found.at()[0] == [expected, 2 * expected]


def test_a_layer_is_the_mean_of_its_tensors_and_rows_hold_before_and_after(tmp_path: Path) -> None:
    rate_record.note(tmp_path, 0, rates_at(0.1, 0.2, 0.4, 0.5))
    rate_record.note(tmp_path, 9, rates_at(1, 2, 4, 5))
    found = rate_record.read(tmp_path)
    assert found is not None
    assert found.by_layer(found.at()) == {"wte": [1, 2], "h.0": [3, 6], "h.1": [5, 10]}
    rows = list(found.rows())
    assert len(rows) == 8
    assert rows[5] == {"layer": "h.0", "name": "h.0.attn.bias", "inner_step": 2, "start": 0.8, "tested": 8}


def test_no_file_is_no_record_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert rate_record.read(tmp_path) is None
    rate_record.select(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
    for text in ("{", '{"names": []}', '{"names": [], "layers": [], "selected": null, "records": []}'):
        (tmp_path / "rates.json").write_text(text)
        with pytest.raises(UserError, match="rates.json: .*this version"):
            rate_record.read(tmp_path)


def test_without_inner_rates_there_is_nothing_to_log_or_record(tmp_path: Path) -> None:
    assert rate_record.summary(None) == {} and rate_record.summary(rates_at(1, 2, 3, -4))["rates/max"] == 6
    rate_record.note(tmp_path, 0, None)
    assert rate_record.read(tmp_path) is None
