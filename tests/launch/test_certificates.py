# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys are what OpenSSL and ssh-keygen take them for, and their private halves are private."""

import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from fedcpsc.errors import ConfigError
from fedcpsc.launch.deployment.certificates import make_authority, make_server_certificate, make_supernode_key


@pytest.fixture
def signed(tmp_path):
    """A folder with an authority and a certificate for two names."""
    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["link.example.org", "10.0.0.7"], days=30)
    return tmp_path


def openssl(folder, *arguments):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["link.example.org", "localhost"])
def test_openssl_trusts_the_certificate_for_its_names(signed, name):
    strict = ("-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.crt", "link.pem")
    assert openssl(signed, "verify", "-verify_hostname", name, *strict).returncode == 0


def test_openssl_trusts_it_for_its_addresses_and_for_no_other_name(signed):
    for address in ("10.0.0.7", "127.0.0.1"):
        assert openssl(signed, "verify", "-verify_ip", address, "-CAfile", "ca.crt", "link.pem").returncode == 0
    other = openssl(signed, "verify", "-verify_hostname", "evil.example.org", "-CAfile", "ca.crt", "link.pem")
    assert other.returncode != 0
    assert "hostname mismatch" in other.stderr


def test_the_names_are_encoded_for_the_wire_and_no_brackets_remain(tmp_path):
    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["müller.example", "[2001:db8::7]", "LINK.example.org."])
    shown = openssl(tmp_path, "x509", "-in", "link.pem", "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:xn--mller-kva.example, IP Address:2001:DB8:0:0:0:0:0:7, DNS:link.example.org, DNS:localhost" in shown
    for name in ("xn--mller-kva.example", "link.example.org"):
        assert openssl(tmp_path, "verify", "-verify_hostname", name, "-CAfile", "ca.crt", "link.pem").returncode == 0


def test_a_renewal_for_no_host_leaves_the_certificate_as_it_was(signed):
    before = (signed / "link.pem").read_bytes()
    with pytest.raises(ConfigError, match="must be a host alone"):
        make_server_certificate(signed, ["link.example.org:8443"])
    assert (signed / "link.pem").read_bytes() == before


def test_the_certificate_is_good_for_as_long_as_was_asked(tmp_path):
    make_authority(tmp_path)
    begins = datetime(2030, 1, 1, tzinfo=UTC)
    assert make_server_certificate(tmp_path, ["a"], days=30, begins=begins) == begins + timedelta(days=30)
    shown = openssl(tmp_path, "x509", "-in", "link.pem", "-noout", "-dates").stdout
    assert "notBefore=Jan  1 00:00:00 2030 GMT" in shown
    assert "notAfter=Jan 31 00:00:00 2030 GMT" in shown


def test_private_keys_are_their_owners_alone(signed):
    make_supernode_key(signed / "node")
    for name in ("ca.key", "link.key", "node"):
        assert stat.S_IMODE((signed / name).stat().st_mode) == 0o600


def test_a_supernode_key_is_an_openssh_pair_on_p_384(tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    make_supernode_key(tmp_path / "node")
    derived = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "node"], capture_output=True, text=True, check=True)
    assert derived.stdout.split()[:2] == (tmp_path / "node.pub").read_text().split()
    assert derived.stdout.startswith("ecdsa-sha2-nistp384 ")


def test_a_renewed_certificate_is_of_the_same_authority(signed):
    authority, first = (signed / "ca.crt").read_bytes(), (signed / "link.pem").read_bytes()
    make_server_certificate(signed, ["link.example.org"])
    assert (signed / "ca.crt").read_bytes() == authority
    assert (signed / "link.pem").read_bytes() != first
    assert openssl(signed, "verify", "-CAfile", "ca.crt", "link.pem").returncode == 0


def test_what_silos_were_given_is_never_replaced(signed):
    with pytest.raises(ConfigError, match=r"ca\.key.*is there already"):
        make_authority(signed)
    make_supernode_key(signed / "node")
    with pytest.raises(ConfigError, match="node.*is there already"):
        make_supernode_key(signed / "node")


def test_an_authority_without_its_key_or_with_another_signs_nothing(signed, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_authority(other)
    shutil.copy(other / "ca.key", signed)
    with pytest.raises(ConfigError, match="is not the key of"):
        make_server_certificate(signed, ["a"])
    (signed / "ca.key").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        make_server_certificate(signed, ["a"])
