"""The paper's numbers are all there, and every cell of ours asks for a metric that its run writes."""

from common.tables import published
from common.tables.cells import Source

PAPER = published.read("slowfast_vgen")
WHOLE = {"place", "other", "foreign", "psnr", "copy"}


def test_all_numbers_of_the_papers_tables_are_there() -> None:
    counts = {
        name: sum(
            cell.published is not None and cell.published.value is not None
            for cell in PAPER.table(name).at("paper").cells()
        )
        for name in ("table1", "table2", "table3", "table4")
    }
    assert counts == {"table1": 52, "table2": 20, "table3": 4, "table4": 10}
    cells = [cell for name in counts for cell in PAPER.table(name).at("paper").cells() if cell.published]
    assert {cell.published.source for cell in cells} == {Source.seen}


def test_some_numbers_are_those_of_the_paper() -> None:
    for table, row, column, value in (
        ("table1", "Ours", "FVD", 514),
        ("table1", "AVDC", "LPIPS", 20.65),
        ("table2", "Ours", "RLBench, Dist", 0.013),
        ("table3", "With TEMP-LORA", "Memory", 9931),
        ("table4", "Without local learning rule", "SCuts", 0.36),
    ):
        cell = next(each for each in PAPER.table(table).cells() if (each.row, each.column) == (row, column))
        assert cell.published is not None and cell.published.value == value


def test_every_cell_asks_for_a_metric_that_its_run_writes() -> None:
    controls = ("swapped", "reset", "frozen", "samples", "none")
    named = WHOLE | {f"{name}_{control}" for name in WHOLE for control in controls}
    named |= {"ceiling", "ssim", "lpips_world"} | {f"gain_{control}" for control in controls}
    slices = ["phase_replay", "phase_return", *(f"of{m}_{gap}" for m in (2, 3, 4, 6) for gap in range(0, 2 * m, 2))]
    written = named | {f"{name}@{chosen}" for name in named for chosen in slices}
    lived = ("consistent", "floor", "alike", "distinct")
    written |= {f"{name}{end}@imagined_{gap}" for name in lived for end in ("", "_none") for gap in (2, 4)}
    src = {f"src_world{end}" for end in ("", "_floor", "_ceiling", "_rescaled", "_apart")}
    written |= {f"{name}@long_walk" for name in src | {"scuts", "scuts_truth", "agreement"}}
    written |= {f"{name}@long_plan" for name in ("dist", "dist_truth", "agreement")}
    written |= {"fvd_world", "fvd_world_real", "fvd_world_plan", "seconds", "fast_share", "memory_mb"}
    cells = [cell for table in PAPER.tables.values() for cell in table.at("cpu").cells() if cell.runs]
    assert len(cells) > 100 and {cell.metric for cell in cells} <= written


def test_what_was_published_and_what_is_seen_through_the_worlds_own_networks_share_no_column() -> None:
    for table in PAPER.tables.values():
        for cell in table.at("cpu").cells():
            assert not (cell.published and cell.runs), f"{table.name}: {cell.row}, {cell.column}"


def test_every_claim_has_a_verdict_beside_another_row_or_a_bound() -> None:
    rows = PAPER.table("claims").rows
    claims = {name.split(",")[0] for name, row in rows.items() if row.claim}
    assert claims == {f"C{number}" for number in range(1, 8)}
    baselines = {row.against for row in rows.values() if row.claim and row.against}
    assert all(not rows[name].claim for name in baselines)


def test_a_run_stands_behind_every_table_that_asks_for_its_settings() -> None:
    behind = {name: {frozenset(job) for job, _ in PAPER.table(name).jobs()} for name in ("gaps", "capacity", "lock_in")}
    assert len(set.union(*behind.values())) < sum(map(len, behind.values())) - 5
    meta = frozenset({"method=meta", "outer.length=2"})
    assert all(any(meta <= job for job in jobs) for jobs in behind.values())


def test_rows_of_the_same_rule_differ_in_what_they_learn_by_alone() -> None:
    rows = [cell.runs[0] for cell in PAPER.table("same_rule").cells() if cell.column == "Return"][:5]
    fast = [sorted(word for word in words if word.startswith(("fast.", "outer.adapter"))) for words in rows]
    assert (
        all(each == fast[0] for each in fast) and "fast.learned=false" in fast[0] and "outer.adapter=false" in fast[0]
    )
