"""A finished run folder with everything that a tracker shows."""

import io
import json
from pathlib import Path
from typing import Any

from common.run import results
from common.run.items import Item
from common.run.results import Interval, RunIdentity

WHO = RunIdentity(paper="paper", experiment="experiment", method="method", scale="cpu", seed=3)
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(64)
"""What an mp4 begins with; nothing here decodes it."""


def finished_folder(folder: Path) -> list[dict[str, Any]]:
    """The files of a finished run; returns its records."""
    records: list[dict[str, Any]] = [
        {"step": 0, "time": 0.25, "split": "dev", "dev/accuracy": 1 / 3},
        {
            "step": 1,
            "time": 1.5,
            "split": "train",
            "train/outer_loss": 0.1 + 0.2,
            "cost/none": None,
            "rates/min": -1e-5,
        },
        {"step": 1, "time": 2.0, "split": "test", "test/accuracy": 0.75, "test/accuracy_yes": 1.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rates = {"names": ["a.weight"], "layers": ["a"], "selected": 1, "records": [{"step": 0, "values": [[0.1, 0.2]]}]}
    (folder / "rates.json").write_text(json.dumps(rates))
    found = results.Results(
        **vars(WHO), config_hash="h", revision="r", dirty=None, hardware={}, wall_seconds=2.0, peak_memory_bytes=7,
        test={"accuracy": Interval(0.75, 4, 0.5, 1.0)},
    )  # fmt: skip
    items = [
        Item(f"q{i}", f"t{i // 2}", {"accuracy": (int(i > 0), 1), **({"recall": (3, 4)} if i else {})}, {"depth": 2})
        for i in range(4)
    ]
    results.write(folder, found, [item.to_json() for item in items])
    return records


def picture(*shades: int, size: tuple[int, int] = (8, 6)) -> bytes:
    """A png of one shade, or a gif that goes through several."""
    from PIL import Image

    first, *rest = [Image.new("RGB", size, (shade, 0, 255 - shade)) for shade in shades]
    buffer = io.BytesIO()
    if rest:
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=100)
    else:
        first.save(buffer, "PNG")
    return buffer.getvalue()


def write_media(folder: Path) -> dict[str, bytes]:
    """Put one file of each kind into a run folder; returns their contents by name, in order."""
    written = {"frame.png": picture(10), "return-ep2.gif": picture(0, 128, 255), "return-ep10.mp4": MP4}
    (folder / "media").mkdir()
    for name, content in written.items():
        (folder / "media" / name).write_bytes(content)
    return written
