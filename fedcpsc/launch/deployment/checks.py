# SPDX-License-Identifier: Apache-2.0
"""Before a SuperNode starts: does the server answer as the silo expects, and the gatekeeper as the server will?

Flower's SuperNode tries again for ever where it cannot connect, and says little about why. These checks end at once,
and name what has to be fixed.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography import x509

from fedcpsc.errors import FederationError, RefusalCode, SiloError, explain
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.launch.deployment.hosts import host_and_port
from fedcpsc.protocol.messages import DescribeRequest, Description, Refusal

__all__ = ["Link", "check_gatekeeper", "check_link", "is_out_of_service"]

# codes of OpenSSL's X509_V_ERR_*
_NOT_YET, _EXPIRED, _HOST, _ADDRESS = 9, 10, 62, 64


@dataclass(frozen=True)
class Link:
    """What a server showed.

    Attributes:
        address: address of the server, host:port, the host's name in ASCII.
        ends: end of its certificate, in UTC.
        control_open: whether anyone who may connect may also start runs: no proxy stands before the SuperLink.
    """

    address: str
    ends: datetime
    control_open: bool


def check_link(address: str, authority: Path, timeout_s: float = 10.0) -> Link:
    """Shakes hands with the server; sends nothing and asks for nothing that needs a key.

    Args:
        address: host:port of the SuperLink, or of the proxy before it, as `host_and_port` takes it.
        authority: certificate that the server's must be signed by (PEM).
        timeout_s: longest wait for each connection, in seconds, > 0.

    Raises:
        ConfigError: `address` is no host and port.
        FederationError: the server cannot be reached, has no TLS, or shows a certificate that is not trusted here: of
            another host or authority, expired, or not yet valid.
    """
    host, port = host_and_port(address, "superlink")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        remedy = "get ca.crt from the server's owner"
        raise FederationError(
            explain("root certificates", str(authority), f"cannot be read ({error})", remedy)
        ) from error
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        raise FederationError(_why_not_trusted(error, address, authority, timeout_s)) from error
    except ssl.SSLError as error:
        remedy = "start the SuperLink with its certificate, and check the port"
        raise FederationError(explain("superlink", address, f"does not speak TLS ({error.reason})", remedy)) from error
    except OSError as error:
        remedy = "check address, port and firewall, and that the server runs"
        raise FederationError(explain("superlink", address, f"cannot be reached ({error})", remedy)) from error
    ends = x509.load_der_x509_certificate(shown or b"").not_valid_after_utc
    return Link(address, ends, _control_open(address, context, timeout_s))


def check_gatekeeper(path: Path) -> Description:
    """What the gatekeeper says of itself over its socket, as this user.

    One that listens has tried its teacher before.

    Raises:
        SiloError: nothing listens there, this user may not connect, or it speaks another version of the protocol.
    """
    remedy = "start fedcpsc gatekeeper serve, with --group if the SuperNode has another user, and check the path"
    try:
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.connect(str(path))
    except OSError as error:
        raise SiloError(explain("gatekeeper socket", str(path), f"cannot be reached ({error})", remedy)) from error
    with closing(SocketGatekeeper(path, timeout_s=30.0)) as gatekeeper:
        said = gatekeeper.describe(DescribeRequest())
    if isinstance(said, Refusal):
        asked = DescribeRequest()
        reason = f"refused to describe itself: {said.code.value}"
        if said.version != asked.version:
            reason += f" (it speaks protocol {said.version}, this installation {asked.version})"
        raise SiloError(explain("gatekeeper", str(path), reason, "see the gatekeeper's log"))
    return said


def is_out_of_service(path: Path) -> bool:
    """Whether the gatekeeper at that socket says that its teacher failed on the last query.

    It is no reason not to connect: the query that failed comes again over the connection, and may be answered.
    """
    with closing(SocketGatekeeper(path, timeout_s=30.0)) as gatekeeper:
        return gatekeeper.health() == RefusalCode.OUT_OF_SERVICE


def _why_not_trusted(error: ssl.SSLCertVerificationError, address: str, authority: Path, timeout_s: float) -> str:
    shown = _untrusted_certificate(address, timeout_s)
    if error.verify_code in (_HOST, _ADDRESS):
        names = f"is for {', '.join(_names(shown))}" if shown else "is for another host"
        return explain("superlink", address, f"its certificate {names}", "use such a name, or have one made for this")
    if error.verify_code in (_NOT_YET, _EXPIRED) and shown:
        now = datetime.now(UTC)
        valid = f"{shown.not_valid_before_utc:%Y-%m-%d %H:%M} to {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        early = error.verify_code == _NOT_YET
        state = "is not yet valid" if early else "has expired"
        state = f"its certificate {state}: valid {valid}, here it is {now:%F %H:%M}"
        return explain("superlink", address, state, "set the clocks" if early else "make a new one at the server")
    reason = f"its certificate is not of the authority {authority} ({error.verify_message})"
    return explain("superlink", address, reason, "get ca.crt from the server's owner")


def _untrusted_certificate(address: str, timeout_s: float) -> x509.Certificate | None:
    """The one shown, to say what is wrong with it; None where it does not come a second time."""
    with suppress(OSError, ValueError):
        return x509.load_pem_x509_certificate(
            ssl.get_server_certificate(host_and_port(address, "superlink"), timeout=timeout_s).encode("ascii")
        )
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in names]
    return [certificate.subject.rfc4514_string()]


def _control_open(address: str, context: ssl.SSLContext, timeout_s: float) -> bool:
    """Whether `/v1/control/` can be reached: the SuperLink knows the path, and takes POST only; the proxy does not.

    Raises:
        FederationError: no reply.
    """
    try:
        url = f"https://{address}/v1/control/list-nodes"
        return httpx.get(url, verify=context, timeout=timeout_s, trust_env=False).status_code != httpx.codes.NOT_FOUND
    except httpx.HTTPError as error:
        reason = f"does not speak HTTP ({type(error).__name__})"
        raise FederationError(explain("superlink", address, reason, "check the port")) from error
