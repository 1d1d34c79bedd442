"""A SuperLink and SuperNodes as processes of their own, with certificates and keys; killed, started again, refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from common.errors import UserError
from common.run.folder import read_records
from fal.flower import deploy
from fal.flower.deployment import SUPERLINK, Deployment
from fal.train import train
from tests.fal.flower.deployed import apart, config, kill, said, until

pytestmark = [pytest.mark.flower, pytest.mark.slow]
TWO = ("engine=flower_deployment", "engine.nodes=2", "loop.again=true")


@pytest.fixture
def federations() -> Iterator[list[Deployment]]:
    """What is ended after a test."""
    found: list[Deployment] = []
    yield found
    for deployment in found:
        deployment.down()


def test_killed_nodes_and_servers_start_again_and_the_run_ends_as_in_process(
    tmp_path: Path, federations: list[Deployment]
) -> None:
    train(config(tmp_path), tmp_path / "here")
    deployment = Deployment(config(tmp_path, *TWO, "engine.port=19443"), tmp_path / "there")
    federations.append(deployment)
    deployment.up()
    with ThreadPoolExecutor() as pool:
        run = pool.submit(deploy.train, deployment)
        until(said(deployment, "node1", "ROUND 2"), "the second round")
        kill(deployment, "node1")
        deployment.up()
        until((deployment.run / "checkpoints" / "step-000002").exists, "the end of the second round")
        kill(deployment, SUPERLINK)
        with pytest.raises(UserError, match="the SuperLink has ended"):
            run.result()
    assert not deployment.finished
    deployment.up()
    deploy.train(deployment)
    assert deployment.finished and apart(tmp_path / "here", tmp_path / "there") < 1e-5
    assert [record["step"] for record in read_records(deployment.run) if "train/loss_last" in record] == [3]
    assert "continuing after step 2" in (deployment.run / "log.txt").read_text()
    assert deployment.down() and not deployment.alive()


def test_without_nodes_the_run_stops_with_their_clients_names_and_no_results(
    tmp_path: Path, federations: list[Deployment]
) -> None:
    words = ("engine.port=19543", "engine.round_seconds=5", "federation.patience=1")
    deployment = Deployment(config(tmp_path, *TWO, *words), tmp_path / "run")
    federations.append(deployment)
    deployment.up()
    for name in ("node0", "node1"):
        kill(deployment, name)
    with pytest.raises(UserError, match=r"round 1 has 0 updates of the 4 it needs after 2 tries .* client 0"):
        deploy.train(deployment)
    assert not deployment.finished and not (deployment.run / "results.json").exists()
    for name in ("node1", "node1.pub"):
        (deployment.folder / name).unlink()
    deployment.write()  # another key, which nobody has registered
    with pytest.raises(UserError, match=r"node1 ended with code(?s:.*)2004"):
        deployment.join(1, again=False)
