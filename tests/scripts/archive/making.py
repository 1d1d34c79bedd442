"""Runs full of where they were made."""

import json
import tarfile
from pathlib import Path
from typing import Any

import yaml

from common.run import results
from reckoning.config import TrainConfig
from tests.scripts.tables.test_tables import write_run

HOST = "node17"
USER = "ada"
SECRETS = (f"/users/{USER}", HOST, USER)
ARCHIVE = Path("docs/results/reckoning.runs.tar.xz")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON or YAML file."""
    read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    path.write_text(write({**read(path.read_text()), **changes}))
    if path.name == "config.yaml":
        digest = results.config_hash(yaml.safe_load(path.read_text()), TrainConfig)
        (path.parent / "FINISHED").write_text(f"{digest}\n")
        edit(path.parent / "results.json", config_hash=digest)


def made(root: str, method: str, *, started: str = "2026-11-01T00:00:00+00:00", **settings: Any) -> Path:
    """A run as training leaves it, full of where it was made."""
    folder = write_run(Path(root), method, 30, **settings)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= {"root": f"/users/{USER}/data", "cache": f"/users/{USER}/runs/data"}
    edit(
        folder / "config.yaml", **config, loop={"root": f"/users/{USER}/runs"}, tracker={"entity": USER, "tags": [HOST]}
    )
    command = f"python /users/{USER}/code/reckoning/train.py -m +sweep=table1 scale=cpu loop.root=/users/{USER}/runs"
    command += f" hydra.launcher.nodelist={HOST} tracker.entity={USER} hydra/launcher=local"
    hardware = {"host": HOST, "cpu": "AMD EPYC", "cores": 2}
    edit(folder / "environment.json", command=command, hardware=hardware, started=started)
    edit(folder / "results.json", hardware=hardware)
    (folder / "metrics.jsonl").write_text('{"step": 1, "dev/accuracy": 0.5}\n')
    (folder / "rates.json").write_text("{}")
    (folder / "log.txt").write_text(f"written on {HOST}")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "config.yaml").write_text("weights")
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return folder


def members() -> list[tarfile.TarInfo]:
    with tarfile.open(ARCHIVE) as tar:
        return tar.getmembers()
