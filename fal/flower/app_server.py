"""Flower's ServerApp: the run as it is trained in process, with clients elsewhere.

Rounds, checkpoints and results are those of `fal.train` and lie in the run's own folder, so that a federation whose
SuperLink was killed continues as every run does, with the round that it was killed in.
"""

import logging
from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import UserError
from common.run.files import write_atomic
from fal.flower.deployment import FAILURE
from fal.flower.remote import Remote
from fal.flower.settings import read
from fal.train import train

app = ServerApp()
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a request, several a second


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train to the end; what a user can mend is written to `failure.txt` and ends the Flower run as failed."""
    path = Path(str(context.run_config["settings"]))
    try:
        settings = read(path)
        federation = settings.config.federation
        card = settings.card(range(settings.config.partition.clients))
        remote = Remote(grid, settings.config.engine, card, federation.minimum, federation.patience)
        config = replace(settings.config, loop=replace(settings.config.loop, save_every=1))
        train(config, path.parent.parent, remote)
    except BaseException as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        write_atomic(path.with_name(FAILURE), text + "\n")
        raise
