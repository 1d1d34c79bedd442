"""What a newcomer brings is one file of settings each: a data set of their own, and a method of their own."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from common.run.items import read_items
from tests.fal.runs import train
from tests.runs import only_run

CLASSES, SIDE = 3, 12


def pictures(folder: Path, split: str, count: int) -> None:
    """Grey pictures below <split>/<class>, each with a bright bar whose row tells the class."""
    noise = np.random.default_rng(len(split))
    for label in range(CLASSES):
        (folder / split / f"class {label}").mkdir(parents=True)
        for number in range(count // CLASSES):
            values = noise.integers(60, 120, (SIDE, SIDE))
            values[3 * label : 3 * label + 3] += 100
            picture = Image.fromarray(values.astype(np.uint8))
            picture.save(folder / split / f"class {label}" / f"{number}.png")


DATA = """\
# Mine: bars.
source: datasets:bars
train: 60
validation: 20
test: 30
classes: 3
"""
METHOD = """\
# @package _global_
# Mine: half of every batch is attacked.
method:
  name: mine
  title: Mine
  objective: adversarial
  fraction: 0.5
"""


@pytest.mark.filterwarnings("default")  # of the libraries below `datasets`
def test_an_own_data_set_and_an_own_method_are_one_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "root" / "bars", "train", 120)
    pictures(tmp_path / "root" / "bars", "test", 30)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for group, text in (("data", DATA), ("method", METHOD)):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "mine.yaml").write_text(text)
    given = ["data=mine", "method=mine", f"data.root={tmp_path / 'root'}"]
    own = f"hydra.searchpath=[pkg://conf.common,{tmp_path / 'mine'}]"
    sizes = ["data.train=60", "data.validation=20", "data.test=30", "data.classes=3"]  # over those of the tests' words
    assert train(tmp_path / "runs", own, *given, *sizes, "partition.clients=3", "federation.rounds=20") == 0
    folder = only_run(tmp_path / "runs")
    results = json.loads((folder / "results.json").read_text())
    assert results["method"] == "mine" and "in place of" not in results["experiment"]
    assert len([item for item in read_items(folder) if item.counts()]) == 30
    assert results["test"]["natural"]["value"] > 0.8 and results["test"]["pgd"]["value"] > 0.5
