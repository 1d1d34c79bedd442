"""One SLURM for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reckoning import miniature
from tests.slurm import node as slurm
from tests.slurm.cluster import Cluster


@pytest.fixture
def cluster(node: Cluster) -> Iterator[Cluster]:
    """The SLURM, with an empty queue before and after."""
    yield node
    node.end_all()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node of three cores and two GPUs that exist by name only, and the miniature to train on it."""
    data = miniature.make_all(tmp_path_factory.mktemp("mini"))
    absent = (data / "conf" / "data" / "mini.yaml").read_text().replace("train.jsonl", "absent.jsonl")
    (data / "conf" / "data" / "absent.yaml").write_text(absent)
    (data / "conf" / "experiment").mkdir()
    (data / "conf" / "experiment" / "mini.yaml").write_text("# @package _global_\nexperiment: mini\n")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # a short path: sockets take about 100 characters
        found = Cluster(slurm.up(Path(name), cpus=3, gpus=2), data)
        try:
            yield found
        finally:
            slurm.down(Path(name))
