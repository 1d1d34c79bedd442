"""Every cell of FAL's tables asks for a metric that its run writes."""

from common.tables import published
from common.tables.cells import Source

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


def test_published_numbers_are_those_of_the_sheets_marks() -> None:
    table = PAPER.table("sfat_table3_cifar10")
    cell = next(each for each in table.cells() if (each.row, each.column) == ("SCAFFOLD, SFAT", "PGD-20"))
    assert cell.published is not None and (cell.published.value, cell.published.source) == (37.33, Source.seen)
    assert {"FAL, its experiments"} <= set(PAPER.not_reached)
