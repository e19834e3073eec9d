# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of a server, as a certificate and a TLS handshake take them.

A certificate for `link.example.org:8000` or `https://link.example.org` is one that no client ever accepts, so what is
neither a host name nor an address is refused. Names outside ASCII are encoded by IDNA 2008 (RFC 5891), on both sides:
Python's own encoding is the older one, by which `straße.example` is another name.
"""

from __future__ import annotations

import ipaddress
import re

import idna

from fedcpsc.errors import ConfigError, explain

__all__ = ["host_and_port", "host_name"]

_EXAMPLE = "give a name such as link.example.org or an address such as 192.0.2.7"
_LONGEST = 253  # RFC 1035
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def host_name(text: str, option: str = "host") -> str:
    """A host's name in lower-case ASCII, or its IP address, without brackets and without a final dot.

    Args:
        text: what a person wrote: a name, an IPv4 address, or an IPv6 address with or without brackets.
        option: name of the option or argument, for the message.

    Raises:
        ConfigError: it is neither, or no name or address of one host.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(inner)
    except ValueError:
        if inner != text:
            raise ConfigError(explain(option, text, "is no IPv6 address in brackets", _EXAMPLE)) from None
        return _encoded(text, option)
    if inner != text and address.version != 6:
        raise ConfigError(explain(option, text, "has brackets, which only an IPv6 address takes", "leave them out"))
    if address.is_unspecified or address.is_multicast or "%" in inner:
        raise ConfigError(explain(option, text, "is not the address of one host for others", _EXAMPLE))
    return str(address)


def host_and_port(text: str, option: str) -> tuple[str, int]:
    """`host:port`, or `[address]:port` for IPv6, as a pair; the host as by `host_name`.

    Raises:
        ConfigError: it is no such pair.
    """
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise ConfigError(explain(option, text, "must be host:port", "for example link.example.org:8443"))
    if ":" in host and not host.startswith("["):
        raise ConfigError(explain(option, text, "must be host:port", "write [ADDRESS]:PORT, or no https:// before it"))
    return host_name(host, option), int(port)


def _encoded(text: str, option: str) -> str:
    fault = _fault(text)
    if fault:
        raise ConfigError(explain(option, text, fault, _EXAMPLE))
    try:
        name = idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower().removesuffix(".")
    except idna.IDNAError as error:
        raise ConfigError(explain(option, text, f"is no host name ({error})", _EXAMPLE)) from error
    if _NUMBER.fullmatch(name.rpartition(".")[2]):  # programs take it for an IPv4 address, each its own way
        raise ConfigError(explain(option, text, "ends in a number and is no IP address", _EXAMPLE))
    return name


def _fault(text: str) -> str | None:
    if not text or not text.isprintable() or any(one.isspace() for one in text):
        return "is empty, or holds a space or another character that cannot be seen"
    if len(text) > _LONGEST:
        return f"has more than {_LONGEST} characters"
    if "*" in text:
        return "is a wildcard, and must be the name of one host"
    if "/" in text or ":" in text or "@" in text:
        return "must be a host alone, without port, path or https://"
    if "_" in text:
        return "holds an underscore, which host names must not"
    return None
