"""Figures of a run: what is on them, and that they can be drawn."""

from common.run import figures
from common.run.rate_record import RateRecord

RECORD = RateRecord(
    names=["wte.weight", "h.0.a", "h.0.b"],
    layers=["wte", "h.0", "h.0"],
    selected=4,
    records=[
        {"step": 0, "values": [[0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]},
        {"step": 4, "values": [[0.2, -0.1], [0.3, 0.1], [0.5, 0.3]]},
    ],
)


def test_the_maps_show_layers_by_inner_steps_on_one_scale() -> None:
    figure = figures.rates_map(RECORD)
    before, after, bar = figure.axes
    assert (before.get_title(), after.get_title()) == ("before training", "as tested")
    assert [label.get_text() for label in before.get_yticklabels()] == ["wte", "h.0"]
    assert [label.get_text() for label in after.get_xticklabels()] == ["1", "2"]
    assert after.images[0].get_array().tolist() == [[0.2, -0.1], [0.4, 0.2]]
    assert before.images[0].get_clim() == after.images[0].get_clim() == (-0.1, 0.4)
    drawn = figures.pixels(figure)
    assert drawn.dtype == "uint8" and drawn.shape[2] == 4 and drawn[..., :3].std() > 10, "something is on it"


def test_the_learning_curve_shows_loss_and_dev_accuracy_and_skips_gaps() -> None:
    records = [
        {"step": 0, "split": "dev", "dev/accuracy": 0.3},
        {"step": 1, "split": "train", "train/outer_loss": 2.0},
        {"step": 2, "split": "train", "train/outer_loss": None},
        {"step": 3, "split": "train", "train/outer_loss": 1.0},
    ]
    figure = figures.learning_curve(records, "accuracy")
    assert figure is not None
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("train/outer_loss", "dev/accuracy")
    assert loss.lines[0].get_xydata().tolist() == [[1, 2], [3, 1]]
    assert figures.pixels(figure)[..., :3].std() > 10


def test_without_either_there_is_no_curve() -> None:
    assert figures.learning_curve([{"step": 0, "split": "test", "test/accuracy": 1.0}], "accuracy") is None
