"""The certificates of a federation and the keys of its nodes, as Flower takes them; those that are there are kept.

A certificate authority of the run's own signs the SuperLink's certificate; nodes trust that authority and no other. A
node proves who it is by an ECDSA key in OpenSSH's format, whose public half is registered before the node starts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from common.errors import UserError

VALID = timedelta(days=825)
"""Of a certificate made here."""


@dataclass(frozen=True)
class Certificates:
    """Files of a SuperLink."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path) -> "Certificates":
        """Those in `folder`, whether they are there or not."""
        return cls(folder / "ca.crt", folder / "server.pem", folder / "server.key")


def certificates(folder: Path, host: str) -> Certificates:
    """Those in `folder`, checked; made if none of them is there.

    Args:
        folder: where they are.
        host: the address that nodes know the SuperLink by; 127.0.0.1 and localhost are always among those made.

    Raises:
        UserError: some of them are missing, damaged or expired, or the certificate lacks the address.
    """
    files = Certificates.of(folder)
    there = [path for path in (files.authority, files.certificate, files.key) if path.is_file()]
    if not there:
        _make(files, [host, "127.0.0.1", "localhost"])
    elif len(there) < 3:
        raise UserError(
            f"{folder} has {', '.join(path.name for path in there)} without the rest of ca.crt, server.pem and "
            "server.key: put all three there, or delete them and new ones are made"
        )
    for path in (files.authority, files.certificate):
        _check(path, datetime.now(UTC))
    _check_address(files.certificate, host)
    return files


def _check(path: Path, now: datetime) -> None:
    found = _read(path)
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise UserError(
            f"{path} is valid from {found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d} and "
            f"today is {now:%Y-%m-%d}; delete ca.crt, server.pem and server.key there and new ones are made"
        )


def _check_address(path: Path, host: str) -> None:
    try:
        names = _read(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    known = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    if host not in known:
        raise UserError(
            f"{path} is for {', '.join(known) or 'no address'} and engine.host={host}: nodes would refuse it; set "
            "engine.host to one of those, or delete ca.crt, server.pem and server.key there and new ones are made"
        )


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no certificate in PEM format ({error}); delete it or put another there") from error


def _make(files: Certificates, hosts: Sequence[str]) -> None:
    files.authority.parent.mkdir(parents=True, exist_ok=True)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = x509.BasicConstraints(ca=True, path_length=0)
    signed = _signed("innerloop federation", authority, "innerloop federation", authority).add_extension(root, True)
    ca = signed.sign(authority, hashes.SHA256())
    leaf = _signed("innerloop SuperLink", own, "innerloop federation", authority)
    names = x509.SubjectAlternativeName([_name(host) for host in dict.fromkeys(hosts)])
    certificate = leaf.add_extension(names, False).sign(authority, hashes.SHA256())
    _write_private(files.key, own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.authority.write_bytes(ca.public_bytes(Encoding.PEM))


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)

    def called(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder(called(issuer), called(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), False)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def node_key(path: Path) -> Path:
    """A node's private key, checked, made if it is missing; the public one lies beside it as `<name>.pub`.

    Raises:
        UserError: what is there is no ECDSA key in OpenSSH's format.
    """
    if not path.is_file():
        key = ec.generate_private_key(ec.SECP384R1())
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    try:
        found = load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is no private key in OpenSSH's format without password ({error}), the only one that Flower's "
            "nodes take; make one with: ssh-keygen -t ecdsa -b 384 -N '' (without -m PEM)"
        ) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise UserError(
            f"{path} is no ECDSA key, the only kind that Flower's nodes take; use ssh-keygen -t ecdsa -b 384"
        )
    public = found.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")
    return path


def _write_private(path: Path, data: bytes) -> None:
    """Readable by its owner alone from the first moment on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
