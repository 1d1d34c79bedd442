"""Tables for a terminal."""

import subprocess
import sys

from common.tables.grid import grid


def test_text_stands_to_the_left_and_numbers_to_the_right() -> None:
    made = grid("Rules", ["rule", "accuracy %", "what it says"], [["last", "9.0", "the last"], ["first", "10.5", "x"]])
    assert made.title == "Rules" and made.row_count == 2
    assert [column.justify for column in made.columns] == ["left", "right", "left"]
    assert [list(column.cells) for column in made.columns] == [["last", "first"], ["9.0", "10.5"], ["the last", "x"]]


def test_rich_is_loaded_when_a_table_is_made() -> None:
    program = "import sys, common.tables.grid; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
