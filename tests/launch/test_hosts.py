# SPDX-License-Identifier: Apache-2.0
"""What is a host's name or address, and what only looks like one."""

import ipaddress

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from fedcpsc.errors import ConfigError
from fedcpsc.launch.deployment.hosts import host_and_port, host_name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("link.example.org", "link.example.org"),
        ("LINK.Example.ORG.", "link.example.org"),
        ("localhost", "localhost"),
        ("a", "a"),
        ("3com.example", "3com.example"),
        ("müller.example", "xn--mller-kva.example"),
        ("MÜLLER.example", "xn--mller-kva.example"),
        ("mu\u0308ller.example", "xn--mller-kva.example"),
        ("xn--mller-kva.example", "xn--mller-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("日本。example", "xn--wgv71a.example"),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "::1"),
        ("[2001:DB8:0::7]", "2001:db8::7"),
    ],
)
def test_a_host_is_written_as_the_wire_takes_it(written, meant):
    assert host_name(written) == meant
    assert host_name(meant) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "is empty"),
        ("a b", "a space"),
        ("link.example.org ", "a space"),
        ("a\tb", "a space"),
        ("a\x1b[31mb", "cannot be seen"),
        ("link\u200b.example", "cannot be seen"),
        ("link\u202e.example", "cannot be seen"),
        ("li\u00adnk.example", "cannot be seen"),
        ("link.example.org:8000", "without port"),
        ("10.0.0.7:8000", "without port"),
        ("[::1]:8000", "without port"),
        ("https://link.example.org", "https://"),
        ("link.example.org/path", "path"),
        ("user@link.example.org", "must be a host alone"),
        ("my_host", "underscore"),
        ("*.example.org", "wildcard"),
        ("*", "wildcard"),
        (".", "is no host name"),
        ("a..b", "is no host name"),
        (".example.org", "is no host name"),
        ("-a.example", "is no host name"),
        ("a-.example", "is no host name"),
        ("xn--zz.example", "is no host name"),
        ("😀.example", "is no host name"),
        ("a!b.example", "is no host name"),
        ("a" * 64 + ".example", "is no host name"),
        ("ü" * 60 + ".example", "is no host name"),
        (".".join(["abcdefghi"] * 26), "more than 253 characters"),
        ("10.0.0", "ends in a number"),
        ("10.0.0.256", "ends in a number"),
        ("010.0.0.7", "ends in a number"),
        ("１０.0.0.7", "ends in a number"),
        ("2130706433", "ends in a number"),
        ("0x7f.1", "ends in a number"),
        ("10.0.0.0x7", "ends in a number"),
        ("[10.0.0.7]", "brackets"),
        ("[link.example.org]", "brackets"),
        ("[]", "brackets"),
        ("fe80::1%eth0", "not the address of one host"),
        ("0.0.0.0", "not the address of one host"),
        ("::", "not the address of one host"),
        ("224.0.0.1", "not the address of one host"),
    ],
)
def test_what_is_no_host_is_refused_with_its_reason(written, said):
    with pytest.raises(ConfigError) as refused:
        host_name(written, "HOSTS")
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"HOSTS={written[:50]!r}"[:50])


@given(st.text(max_size=80) | st.text(alphabet="aü-.:[]/*_ 0x7%１。ß\u200d", max_size=80))
@example("\ud800")
@example("a" * 100_000)
def test_any_text_is_a_host_that_a_certificate_can_name_or_is_refused(text):
    try:
        name = host_name(text)
    except ConfigError:
        return
    assert host_name(name) == name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        assert x509.DNSName(name).value == name
        assert all(0 < len(label) < 64 for label in name.split("."))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("link.example.org:8443", ("link.example.org", 8443)),
        ("müller.example:1", ("xn--mller-kva.example", 1)),
        ("[::1]:65535", ("::1", 65_535)),
        ("10.0.0.7:80", ("10.0.0.7", 80)),
    ],
)
def test_an_address_has_a_host_and_a_port(written, meant):
    assert host_and_port(written, "superlink") == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        ":",
        "localhost",
        "localhost:",
        ":1",
        "a:0",
        "a:65536",
        "a:٨٠",
        "a:+1",
        "a: 1",
        "::1:80",
        "https://a:80",
        "a:1:2",
    ],
)
def test_what_is_no_host_with_a_port_is_refused(written):
    with pytest.raises(ConfigError, match="superlink=.*must be host:port"):
        host_and_port(written, "superlink")
