# SPDX-License-Identifier: Apache-2.0
"""Certificates for TLS and SuperNode keys, as Flower takes them.

The server has a certificate of an authority that every silo trusts; a silo has a key pair whose public half is
registered at the server. Keys are ECDSA: P-256 for TLS, P-384 for SuperNodes (Flower takes NIST curves only).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcpsc.errors import ConfigError, explain
from fedcpsc.files import write_whole
from fedcpsc.launch.deployment.hosts import host_name

__all__ = [
    "AUTHORITY",
    "AUTHORITY_KEY",
    "SERVER",
    "SERVER_KEY",
    "make_authority",
    "make_server_certificate",
    "make_supernode_key",
]

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "link.pem", "link.key"

_CURVE = ec.SECP256R1
_SLACK = timedelta(hours=1)  # begins so much earlier: a silo's clock may be a little behind
_ALWAYS = ("localhost", "127.0.0.1")  # the server's own commands


def make_authority(folder: Path, days: int = 3650) -> None:
    """Writes `ca.key` (mode 0600) and `ca.crt`, a certificate authority for one federation.

    Args:
        folder: folder to write into.
        days: days until it ends, >= 1.

    Raises:
        ConfigError: one of the files is there; every silo would have to be given the new one.
    """
    for file in (folder / AUTHORITY_KEY, folder / AUTHORITY):
        if file.exists():
            raise ConfigError(explain("authority", str(file), "is there already", "move it away first"))
    key = ec.generate_private_key(_CURVE())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federation CA")])
    now = datetime.now(UTC)
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # certificates, revocations
    certificate = (
        _builder(name, name, key.public_key(), now - _SLACK, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_whole(folder / AUTHORITY_KEY, _pem(key), private=True)
    write_whole(folder / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"))


def make_server_certificate(
    folder: Path, hosts: Sequence[str], days: int = 365, begins: datetime | None = None
) -> datetime:
    """Writes `link.key` (mode 0600) and `link.pem`, the server's certificate; replaces earlier ones.

    Args:
        folder: folder that holds `ca.key` and `ca.crt`.
        hosts: names and IP addresses under which silos reach the server, at least one, as `host_name` takes them;
            localhost is always added.
        days: days until it ends, counted from `begins`, >= 1.
        begins: begin of its validity, with a time zone; None takes an hour ago.

    Returns:
        When it ends, in UTC.

    Raises:
        ConfigError: one is no host, or the authority's files are missing or unreadable.
    """
    names = [_general_name(host) for host in dict.fromkeys([*map(host_name, hosts), *_ALWAYS])]
    authority, authority_key = _read_authority(folder)
    key = ec.generate_private_key(_CURVE())
    begins = begins or datetime.now(UTC) - _SLACK
    ends = begins + timedelta(days=days)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federation SuperLink")])
    certificate = (
        _builder(name, authority.subject, key.public_key(), begins, ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    write_whole(folder / SERVER_KEY, _pem(key), private=True)
    write_whole(folder / SERVER, certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"))
    return ends


def make_supernode_key(path: Path) -> None:
    """Writes an OpenSSH key pair: `path` (mode 0600) and `path`.pub.

    Raises:
        ConfigError: one of them is there; a new key would be another node, to be registered anew.
    """
    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise ConfigError(explain("SuperNode key", str(file), "is there already", "move it away first"))
    key = ec.generate_private_key(ec.SECP384R1())
    ssh, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    write_whole(path, key.private_bytes(serialization.Encoding.PEM, ssh, none).decode("ascii"), private=True)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_whole(public, line.decode("ascii") + "\n")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _read_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        remedy = "sign where both lie, or move a lone one away to begin a new authority"
        raise ConfigError(
            explain("authority", str(folder), f"{AUTHORITY} and {AUTHORITY_KEY} cannot be read ({error})", remedy)
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        remedy = "use the pair that was made together"
        raise ConfigError(explain("authority", str(folder), f"{AUTHORITY_KEY} is not the key of {AUTHORITY}", remedy))
    return certificate, key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, none).decode("ascii")
