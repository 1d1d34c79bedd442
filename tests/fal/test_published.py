"""Every cell of FAL's tables composes and asks for a metric that its run writes."""

from omegaconf import OmegaConf

from common.run.schema import to_typed
from common.tables import published, sweep
from common.tables.cells import Source
from fal.config import TrainConfig

PAPER = published.read("fal")
SETS = {"worst_class", "worst_client", "lowest_fifth"}


def test_every_cell_asks_for_a_metric_that_its_run_writes() -> None:
    whole = {"natural", "fgsm", "pgd", "cw", "aa_lite"}
    written = (
        whole
        | SETS
        | {f"{name}@round_last" for name in whole}
        | {f"{name}@round_recent" for name in ("natural", "pgd")}
    )
    cells = [cell for table in PAPER.tables.values() if table.command == "train" for cell in table.at("paper").cells()]
    assert len(cells) > 150 and {cell.metric for cell in cells} <= written
    with sweep.composing("fal") as compose:
        for words in {run for cell in cells for run in cell.runs}:
            assert to_typed(OmegaConf.create(sweep.settings_of(compose(words))), TrainConfig).evaluation.aa_lite


def test_published_numbers_are_those_of_the_sheets_marks() -> None:
    table = PAPER.table("sfat_table3_cifar10")
    cell = next(each for each in table.cells() if (each.row, each.column) == ("SCAFFOLD, SFAT", "PGD-20"))
    assert cell.published is not None and (cell.published.value, cell.published.source) == (37.33, Source.seen)
    assert {"FAL, its experiments"} <= set(PAPER.not_reached)
