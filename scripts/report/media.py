"""What runs left in their `media` folders, inside the page: pictures, moving pictures, videos."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from common.run.media import Medium, find, size_text, within
from common.tables.runs import Run, command_of
from scripts.report.page import Block, Cell, DataTable, Figure, Head, Line

MOST_EACH, MOST_IN_ALL = 500_000, 1_500_000
"""Bytes of a file and of all files on the page. Base64 makes 2 MB of the latter: tables and figures of two papers are
2.5 MB, and a page should stay below 5.
"""
NOTE = (
    f"Pictures and videos of finished runs, in the order of the runs: at most {size_text(MOST_EACH)} a file and "
    f"{size_text(MOST_IN_ALL)} in all. What is left out is named below."
)


def blocks(runs: Sequence[Run]) -> list[Block]:
    """A block for each run with media that fit, and one that names what does not; empty without media."""
    found = {run.folder: find(run.folder) for run in runs}
    kept, left_out = within((medium for media in found.values() for medium in media), MOST_EACH, MOST_IN_ALL)
    shown: list[Block] = []
    for run in runs:
        who, own = run.results, [medium for medium in kept if medium in found[run.folder]]
        if own:
            title = f"{who.experiment}, {who.method}, seed {who.seed}"
            figure = Figure(title, [(medium.key.partition("/")[2], embedded(medium)) for medium in own])
            command = [("run", command)] if (command := command_of(run.folder)) else []
            anchor = f"media-{len(shown) + 1}"
            shown.append(Block(title, anchor, who.paper, [str(run.folder)], figures=[figure], commands=command))
    if left_out:
        shown.append(Block("Left out", "media-left-out", table=_left_out(left_out)))
    return shown


def embedded(medium: Medium) -> str:
    """The file as an element of a page, its bytes inside."""
    name, data = escape(medium.path.name), b64encode(medium.path.read_bytes()).decode()
    if medium.path.suffix == ".mp4":
        return f'<video class="media" controls aria-label="{name}" src="data:video/mp4;base64,{data}"></video>'
    return f'<img class="media" alt="{name}" src="data:image/{medium.path.suffix[1:]};base64,{data}">'


def _left_out(media: Sequence[Medium]) -> DataTable:
    lines = []
    for medium in media:
        why = f"larger than {size_text(MOST_EACH)}" if medium.size > MOST_EACH else "no room left on the page"
        lines.append(Line([Cell(str(medium.path)), Cell(size_text(medium.size), value=medium.size), Cell(why)]))
    return DataTable([Head("file", number=False), Head("size"), Head("why", number=False)], lines, "Media left out")
