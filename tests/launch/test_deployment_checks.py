# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc deploy check` says of servers and gatekeepers that are not as they should be."""

import dataclasses
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.fakes import FakeSilo
from support.silo_folder import make_folder
from support.socket_silo import served
from typer.testing import CliRunner

from fedcpsc.commands.deploy_commands import deploy_app
from fedcpsc.errors import ConfigError, FederationError, RefusalCode, SiloError
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.launch.deployment.certificates import make_authority, make_server_certificate
from fedcpsc.launch.deployment.checks import check_gatekeeper, check_link, is_out_of_service
from fedcpsc.launch.processes import free_ports
from fedcpsc.protocol.messages import PROTOCOL_VERSION, Refusal


class Replies(BaseHTTPRequestHandler):
    """Knows one path below /v1/control/, as the SuperLink does, or none, as the proxy."""

    known = False

    def do_GET(self):
        self.send_error(405 if self.known else 404)

    def log_message(self, *args):
        pass


@pytest.fixture
def listen(tmp_path):
    """Starts a server; with a folder's certificate, or without TLS."""
    running = []

    def start(folder=None, known=False, host="127.0.0.1"):
        server = ThreadingHTTPServer((host, 0), type("Its", (Replies,), {"known": known}))
        server.handle_error = lambda *args: None  # who does not trust it hangs up
        if folder is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "link.pem", folder / "link.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return f"{host}:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def authority(tmp_path):
    make_authority(tmp_path)
    return tmp_path


@pytest.mark.parametrize("known", [True, False], ids=["superlink", "proxy"])
def test_a_server_as_it_should_be_and_whether_more_than_supernodes_get_in(authority, listen, known):
    ends = make_server_certificate(authority, ["127.0.0.1"], days=10)
    link = check_link(listen(authority, known), authority / "ca.crt")
    assert link.ends == ends.replace(microsecond=0)
    assert link.control_open is known


def test_a_certificate_of_another_host_is_told_with_its_names(authority, listen):
    make_server_certificate(authority, ["link.example.org"])
    with pytest.raises(FederationError, match=r"is for link\.example\.org, localhost, 127\.0\.0\.1;"):
        check_link(listen(authority, host="127.0.0.2"), authority / "ca.crt")


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        pytest.param(timedelta(days=-9), "has expired: valid .* make a new one", id="expired"),
        pytest.param(timedelta(days=2), "is not yet valid: .* set the clocks", id="clocks-apart"),
    ],
)
def test_a_certificate_out_of_its_time_is_told_with_its_dates_and_the_clock_here(authority, listen, begins, said):
    make_server_certificate(authority, ["127.0.0.1"], days=5, begins=datetime.now(UTC) + begins)
    with pytest.raises(FederationError, match=said) as raised:
        check_link(listen(authority), authority / "ca.crt")
    assert f"here it is {datetime.now(UTC):%Y-%m}" in str(raised.value)


def test_a_certificate_of_another_authority_is_not_trusted(authority, listen, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_authority(other)
    make_server_certificate(other, ["127.0.0.1"])
    with pytest.raises(FederationError, match="is not of the authority"):
        check_link(listen(other), authority / "ca.crt")


def test_a_server_without_tls_nobody_there_and_no_address(authority, listen):
    with pytest.raises(FederationError, match="does not speak TLS"):
        check_link(listen(), authority / "ca.crt")
    with pytest.raises(FederationError, match="cannot be reached.*refused"):
        check_link(f"127.0.0.1:{free_ports(1)[0]}", authority / "ca.crt")
    for address in ("localhost", "localhost:http", ":1", "localhost:0", "localhost:65536"):
        with pytest.raises(ConfigError, match="must be host:port"):
            check_link(address, authority / "ca.crt")


def test_an_authority_that_is_missing_or_is_none(authority, tmp_path):
    (tmp_path / "empty").write_text("nothing")
    for path in (tmp_path / "missing", tmp_path / "empty"):
        with pytest.raises(FederationError, match="root certificates.*cannot be read"):
            check_link("127.0.0.1:1", path)


def test_a_gatekeeper_describes_itself(tmp_path):
    with served(FakeSilo("north"), tmp_path / "s") as path:
        assert check_gatekeeper(path).silo == "north"


def test_a_socket_that_is_missing_dead_or_none(tmp_path):
    with served(FakeSilo(), tmp_path / "s"):
        pass
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "s", tmp_path / "file"):
        with pytest.raises(SiloError, match="cannot be reached.*start fedcpsc gatekeeper serve"):
            check_gatekeeper(path)


def test_a_gatekeeper_of_another_major_version_is_told_with_both(tmp_path):
    silo = FakeSilo()
    silo.description = dataclasses.replace(silo.description, version="2.3")
    said = rf"it speaks protocol 2\.3, this installation {PROTOCOL_VERSION}"
    with served(silo, tmp_path / "s") as path, pytest.raises(SiloError, match=said):
        check_gatekeeper(path)


def test_a_gatekeeper_that_refuses_is_told_with_the_code(tmp_path):
    silo = FakeSilo()
    silo.description = Refusal(RefusalCode.INTERNAL)
    with served(silo, tmp_path / "s") as path, pytest.raises(SiloError, match="refused to describe itself: internal"):
        check_gatekeeper(path)


def test_a_gatekeeper_whose_teacher_failed_lately_is_told_and_may_be_connected_to(tmp_path):
    outage = Outage()
    with served(FakeSilo("north"), tmp_path / "s", outage) as path:
        assert not is_out_of_service(path)
        outage.failed()
        assert is_out_of_service(path)
        assert check_gatekeeper(path).silo == "north"
        outage.worked()
        assert not is_out_of_service(path)


@pytest.mark.parametrize("entry_point", ["make", "broken"])
def test_the_teacher_of_a_folder_is_tried_before_the_server_is_looked_for(entry_point, tmp_path):
    make_folder(tmp_path / "silo", entry_point=f"support.brightness_teacher:{entry_point}")
    before = (tmp_path / "silo" / "ledger.sqlite").read_bytes()
    shown = CliRunner().invoke(deploy_app, ["check", "localhost:1", "--silo-dir", str(tmp_path / "silo")])
    assert shown.exit_code == 1
    assert ("1,000 images take" in shown.output) == (entry_point == "make")
    assert ("invented image" in shown.output) == (entry_point == "broken")
    assert (tmp_path / "silo" / "ledger.sqlite").read_bytes() == before
