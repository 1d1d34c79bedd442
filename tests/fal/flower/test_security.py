"""Certificates and keys: made, kept, and refused by name where Flower would fail without a reason."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.errors import UserError
from fal.flower import security
from fal.flower.security import certificates, node_key

pytestmark = pytest.mark.flower


def test_certificates_and_keys_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    files, key = certificates(tmp_path, "10.1.2.3"), node_key(tmp_path / "node0")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in before} == {"ca.crt", "server.pem", "server.key", "node0", "node0.pub"}
    for host in ("10.1.2.3", "127.0.0.1", "localhost"):
        assert certificates(tmp_path, host) == files
    node_key(key)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    for secret in (files.key, key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    certificates(tmp_path, "127.0.0.1")
    with pytest.raises(
        UserError, match=r"server.pem is for 127.0.0.1, localhost|server.pem is for localhost, 127.0.0.1"
    ):
        certificates(tmp_path, "example.org")


def test_an_expired_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "VALID", timedelta(minutes=-1))
    with pytest.raises(UserError, match=r"ca.crt is valid from \S+ to \S+ and today is \S+; delete ca.crt"):
        certificates(tmp_path, "127.0.0.1")


@pytest.mark.parametrize("missing", ["ca.crt", "server.pem", "server.key"])
def test_a_part_of_the_certificates_is_refused(tmp_path: Path, missing: str) -> None:
    certificates(tmp_path, "127.0.0.1")
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match="without the rest of ca.crt, server.pem and server.key"):
        certificates(tmp_path, "127.0.0.1")


def test_a_damaged_certificate_is_refused(tmp_path: Path) -> None:
    (certificates(tmp_path, "127.0.0.1").authority).write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(UserError, match=r"ca.crt is no certificate in PEM format"):
        certificates(tmp_path, "127.0.0.1")


def test_a_key_in_pem_format_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "node0").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    with pytest.raises(UserError, match=r"node0 is no private key in OpenSSH's format .*ssh-keygen -t ecdsa"):
        node_key(tmp_path / "node0")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "node0").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(UserError, match="node0 is no ECDSA key"):
        node_key(tmp_path / "node0")
