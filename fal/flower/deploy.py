"""A federation by Flower, step by step: up starts what does not run, run trains on it, status tells, down ends it.

python -m fal.flower.deploy up +experiment=fashion_mnist_skew scale=cpu engine=flower_deployment
python -m fal.flower.deploy run +experiment=fashion_mnist_skew scale=cpu engine=flower_deployment
python -m fal.flower.deploy status +experiment=fashion_mnist_skew scale=cpu engine=flower_deployment
python -m fal.flower.deploy down +experiment=fashion_mnist_skew scale=cpu engine=flower_deployment

The words behind the first are those of `fal.train`, which with the same engine does all of it.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import to_typed
from fal.config import TrainConfig
from fal.flower.config import Engine, need_flower

if TYPE_CHECKING:
    from common.run.results import Results
    from fal.flower.deployment import Deployment

ConfigStore.instance().store(name="fal_schema", node=TrainConfig)
log = logging.getLogger(__name__)
STEPS = ("up", "run", "status", "down")
LOOK_SECONDS, ASK_SECONDS = 1.0, 30.0
"""Between two looks at files and processes, and two questions to Flower whether its run still goes on."""


def conduct(config: TrainConfig, folder: Path) -> Results:
    """Start a federation, train on it, end it.

    Raises:
        UserError: it cannot be started, or the run stopped; the same command continues it.
    """
    from common.run import results

    need_flower(config.engine)
    from fal.flower.deployment import Deployment

    deployment = Deployment(config, folder)
    if not deployment.finished:
        try:
            deployment.up()
            train(deployment)
        finally:
            deployment.down()
    return results.read(folder)


def train(deployment: Deployment) -> None:
    """Run on a federation that is up, to the end.

    Raises:
        UserError: the run stopped, or the SuperLink ended.
    """
    from fal.flower.deployment import SUPERLINK
    from fal.flower.processes import tail

    number, asked, missing = deployment.submit(), time.monotonic(), set[str]()
    log.info("Flower's run %d has begun; its rounds are told in %s", number, deployment.run / "log.txt")
    while not deployment.finished:
        if deployment.failure.is_file():
            raise UserError(f"{deployment.run}: {deployment.failure.read_text(encoding='utf-8').strip()}")
        alive = deployment.alive()
        if SUPERLINK not in alive:
            raise UserError(
                f"{deployment.run}: the SuperLink has ended; start it again, and the run goes on after the last "
                f"round that was saved; its last lines:\n{tail(deployment.log(SUPERLINK))}"
            )
        for name in sorted({deployment.node(node) for node in deployment.here} - alive - missing):
            last = tail(deployment.log(name))
            log.warning("%s has ended; fal.flower.deploy up starts it again; its last lines:\n%s", name, last)
            missing.add(name)
        if time.monotonic() - asked > ASK_SECONDS:
            status, asked = deployment.status(number), time.monotonic()
            if status.startswith("finished") and not (deployment.finished or deployment.failure.is_file()):
                raise UserError(
                    f"{deployment.run}: Flower ended the run ({status}) without results; see {SUPERLINK}.log"
                )
        time.sleep(LOOK_SECONDS)


def show(deployment: Deployment) -> None:
    """Print what runs, and how far the run is."""
    from common.run.folder import read_records
    from fal.flower import processes

    running = processes.running(deployment.folder)
    for name, group in sorted(running.items()):
        state = "runs" if group.alive else "has ended, what it started runs"
        print(f"{name:<12} {state}: {', '.join(str(process.pid) for process in group.members)}")
    if not running:
        print(f"{deployment.folder}: no process runs")
    steps = [record["step"] for record in read_records(deployment.run)]
    ended = "finished" if deployment.finished else f"round {max(steps, default=0)}"
    print(f"{deployment.run}: {ended} of {deployment.config.federation.rounds} rounds")


@entry("pkg://conf.fal")
def main(cfg: DictConfig) -> None:
    """One of the steps."""
    config = to_typed(cfg, TrainConfig)
    if config.engine.name is Engine.inprocess:
        raise UserError("engine=inprocess has no processes to deploy; add engine=flower_deployment")
    need_flower(config.engine)
    from fal.flower.deployment import Deployment

    deployment = Deployment(config, Path(HydraConfig.get().runtime.output_dir))
    if STEP == "down":
        print("ended: " + (", ".join(deployment.down()) or "nothing ran"))
    elif STEP == "status":
        show(deployment)
    elif STEP == "run":
        train(deployment)
    else:
        deployment.up()


STEP = ""
"""What was asked for."""


def dispatch() -> None:
    """Take the step off the command line; the rest is Hydra's."""
    global STEP
    if len(sys.argv) > 1 and sys.argv[1] in STEPS:
        STEP = sys.argv.pop(1)
    elif not {"-h", "--help"} & set(sys.argv):
        sys.exit(f"fal.flower.deploy: the first word is one of {', '.join(STEPS)}")
    main()


if __name__ == "__main__":
    dispatch()
