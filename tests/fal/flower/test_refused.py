"""What a federation refuses, and by what name: before anything is started, at the SuperLink's door, and in a round."""

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from omegaconf import OmegaConf

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.errors import UserError
from fal.flower import deploy, processes, security
from fal.flower.deployment import SUPERLINK, TAKEN, Deployment
from fal.train import train
from tests.fal.flower.deployed import config, said, until

pytestmark = pytest.mark.flower
TWO = ("engine=flower_deployment", "engine.nodes=2", "loop.again=true")
AWAY = (*TWO, "engine.nodes_here=false", "engine.round_seconds=20", "federation.patience=0")


def expired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(security, "VALID", timedelta(minutes=-1))
        security.certificates(folder, "127.0.0.1")


def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(security, "_name", lambda host: security.x509.DNSName("example.org"))
        security._make(security.Certificates.of(folder), ["example.org"])


def in_pem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    folder.mkdir(parents=True)
    (folder / "node1").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


@pytest.mark.parametrize(
    "put, told",
    [
        (expired, r"ca\.crt is valid from \S+ to \S+ and today is \S+; delete"),
        (elsewhere, r"server\.pem is for example\.org and engine\.host=127\.0\.0\.1: nodes would refuse it"),
        (in_pem, r"node1 is no private key in OpenSSH's format .*ssh-keygen -t ecdsa -b 384"),
    ],
)
def test_certificates_and_keys_that_cannot_work_are_named_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, pytest.MonkeyPatch], None], told: str
) -> None:
    deployment = Deployment(config(tmp_path, *TWO), tmp_path / "run")
    put(deployment.folder, monkeypatch)
    with pytest.raises(UserError, match=told):
        deployment.up()
    assert not processes.running(deployment.folder) and not deployment.log(SUPERLINK).exists()


@pytest.mark.parametrize("place, name", [(0, SUPERLINK), (2, "node1")])
def test_a_port_that_somebody_has_is_named_and_nothing_is_started(tmp_path: Path, place: int, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1] - place
        deployment = Deployment(config(tmp_path, *TWO, f"engine.port={first}"), tmp_path / "run")
        with pytest.raises(UserError, match=rf"port {first + place}, which {name} needs, is in use .*set engine\.port"):
            deployment.up()
    assert not processes.running(deployment.folder) and not deployment.log(SUPERLINK).exists()


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[Deployment]:
    """One that runs, with the keys of two nodes that do not."""
    deployment = Deployment(config(tmp_path, *AWAY, "engine.port=19643"), tmp_path / "run")
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.down()


@pytest.mark.slow
def test_nodes_that_are_not_who_they_should_be_are_refused(superlink: Deployment, tmp_path: Path) -> None:
    """One without TLS, one that trusts another authority, and one that works by other settings."""
    security.certificates(tmp_path / "other", "127.0.0.1")
    plain, distrustful = superlink.node_command(0), superlink.node_command(1)
    for option in ("--root-certificates", "--auth-supernode-private-key"):
        at = plain.index(option)
        del plain[at : at + 2]
    distrustful[distrustful.index("--root-certificates") + 1] = str(tmp_path / "other" / "ca.crt")
    superlink.start("plain", [*plain, "--insecure"])
    superlink.start("distrustful", distrustful)
    until(said(superlink, "plain", "Connection attempt failed", times=3), "the refusal of the node without TLS")
    until(said(superlink, "distrustful", "CERTIFICATE_VERIFY_FAILED"), "the refusal by the node of another authority")
    with pytest.raises(
        UserError, match=r"client 0 \(no node with it has come\).* client 3 .*without TLS \(--insecure\)"
    ):
        deploy.train(superlink)
    for name in ("plain", "distrustful"):
        assert not said(superlink, name, TAKEN)()
        processes.stop(processes.running(superlink.folder).get(name, processes.Group(False, [])).members)

    settings = OmegaConf.load(superlink.settings)
    settings.seed = 7
    strange = tmp_path / "settings.yaml"
    OmegaConf.save(settings, strange)
    superlink.start("node0", superlink.node_command(0))
    own = [word.replace(str(superlink.settings), str(strange)) for word in superlink.node_command(1)]
    superlink.start("node1", own)
    for name in ("node0", "node1"):
        until(said(superlink, name, TAKEN), f"the SuperLink's yes to {name}")
    with pytest.raises(UserError, match=r"node \d+ \(clients 1, 3\) has another configuration \(\w+\) than the server"):
        deploy.train(superlink)
    assert not superlink.finished and not (superlink.run / "results.json").exists()


@pytest.mark.slow
def test_updates_that_are_not_finite_stop_a_federation_as_they_stop_a_run_in_process(tmp_path: Path) -> None:
    words = ("optimiser.lr=1e30", "federation.max_rejected=2")
    with pytest.raises(UserError, match=r"the last of client 3 \(is not finite\)") as here:
        train(config(tmp_path, *words), tmp_path / "here")
    there = ("engine=flower_deployment", "engine.nodes=1", "loop.again=true", "engine.port=19743")
    with pytest.raises(UserError) as error:
        train(config(tmp_path, *words, *there), tmp_path / "there")
    assert str(error.value) == f"{tmp_path / 'there'}: {here.value}"
    log = (tmp_path / "there" / "log.txt").read_text()
    assert all(f"the update of client {client} is not finite; it is left out" in log for client in range(4))
