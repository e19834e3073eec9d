# SPDX-License-Identifier: Apache-2.0
"""Whom a deployment keeps out: six strangers before one real SuperLink, behind the shipped proxy where nginx is."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from support.documented import ROOT
from support.nginx import NGINX, shipped_proxy

from fedcpsc.app_config import AppConfig
from fedcpsc.errors import FederationError
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app
from fedcpsc.launch.deployment.certificates import (
    AUTHORITY,
    SERVER,
    SERVER_KEY,
    make_server_certificate,
    make_supernode_key,
)
from fedcpsc.launch.deployment.checks import check_link
from fedcpsc.launch.deployment.federation import federation
from fedcpsc.launch.deployment.layout import claimed
from fedcpsc.launch.processes import end, flower_environment, free_ports, marked
from fedcpsc.launch.submitted import submit_and_wait

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PROTOBUF = {"Content-Type": "application/protobuf"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server as the page sets it up, at which one key, `known`, is registered."""
    folder = tmp_path_factory.mktemp("refusals") / "deployment"
    with claimed(folder) as layout, federation(layout, []) as up:
        make_supernode_key(layout.server / "known")
        up.flower.register(layout.server / "known.pub")
        yield up


@pytest.fixture(scope="module")
def proxy(server):
    """The address of nginx with the configuration we ship, its paths and ports put here."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with shipped_proxy(server.layout.server, server.address) as address:
        yield address


def post(server, address, path):
    trusted = ssl.create_default_context(cafile=server.layout.server / AUTHORITY)
    url = f"https://{address}{path}"
    return httpx.post(url, content=b"", headers=PROTOBUF, verify=trusted, timeout=30, trust_env=False).status_code


def supernode(folder, address, *options):
    """A real SuperNode, that gives up after one more try; its exit code and what it said."""
    command = ["flower-supernode", "--superlink", address]
    command += ["--host", "127.0.0.1", "--port", str(free_ports(1)[0]), "--max-retries", "1", *options]
    home = folder / "flwr"
    home.mkdir()
    try:
        with (folder / "log").open("wb") as log:
            ended = subprocess.run(
                command, env=flower_environment(home), stdout=log, stderr=log, timeout=200, check=False
            )
    finally:
        end(marked("FLWR_HOME", str(home)))  # one that was refused leaves its SuperExec behind
    return ended.returncode, (folder / "log").read_text()


def with_key(server, folder):
    """Options of a SuperNode that trusts the server and has a key of its own."""
    make_supernode_key(folder / "key")
    trusted = str(server.layout.server / AUTHORITY)
    return "--root-certificates", trusted, "--auth-supernode-private-key", str(folder / "key")


def test_a_supernode_that_is_not_registered_is_turned_away(server, tmp_path):
    code, said = supernode(tmp_path, server.address, *with_key(server, tmp_path))
    assert code != 0
    assert "2004" in said
    assert set(server.flower.nodes().values()) == {"registered"}  # only `known`, and it never came


def test_a_registered_key_is_of_no_use_without_its_private_half(server, tmp_path):
    make_supernode_key(tmp_path / "stranger")
    known, stranger = (
        load_ssh_private_key(path.read_bytes(), None) for path in (known_key(server), tmp_path / "stranger")
    )

    def come(signing):
        signed = NodeAuthHttpInterceptor(signing, known.public_key())
        trusted = ssl.create_default_context(cafile=server.layout.server / AUTHORITY)
        client = FleetHttpClient(f"https://{server.address}", interceptors=[signed], verify=trusted)
        with contextlib.closing(client), pytest.raises(httpx.HTTPStatusError) as raised:
            client.RegisterNode(RegisterNodeFleetRequest(public_key=public_key_to_bytes(known.public_key())))
        return raised.value.response.status_code

    assert come(stranger) == httpx.codes.UNAUTHORIZED
    # the very same call, signed as it should be, is let in, to be asked next which version of Flower it is
    assert come(known) == httpx.codes.PRECONDITION_FAILED


def known_key(server):
    return server.layout.server / "known"


def test_a_supernode_without_tls_gets_nowhere(server, tmp_path):
    code, said = supernode(tmp_path, server.address, "--insecure")
    assert code != 0
    assert "could not establish a connection" in said
    assert set(server.flower.nodes().values()) == {"registered"}
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://{server.address}/v1/fleet/register-node", timeout=10, trust_env=False)


@pytest.fixture
def expired(server, tmp_path):
    """Listens with a certificate of the right authority and host that ended yesterday; keeps what it is told."""
    for name in (AUTHORITY, "ca.key"):
        shutil.copy(server.layout.server / name, tmp_path)
    make_server_certificate(tmp_path, ["127.0.0.1"], days=1, begins=datetime.now(UTC) - timedelta(days=2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / SERVER, tmp_path / SERVER_KEY)
    trusting = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands():
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:  # closed below
                    return
                with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    trusting.append(secured.recv(1))

        thread = threading.Thread(target=shake_hands)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", trusting
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_a_server_with_an_expired_certificate_is_told_nothing(server, expired, tmp_path):
    address, trusting = expired
    authority = server.layout.server / AUTHORITY
    code, said = supernode(tmp_path, address, *with_key(server, tmp_path))
    assert code != 0
    assert "expired" in said
    with pytest.raises(FederationError, match="its certificate has expired: valid .* here it is"):
        check_link(address, authority)
    assert [byte for byte in trusting if byte] == []


def test_the_control_api_is_not_there_from_outside_the_proxy(server, proxy):
    path = "/v1/control/list-nodes"
    assert post(server, server.address, path) == httpx.codes.OK  # on the server itself: no login
    assert post(server, proxy, path) == httpx.codes.NOT_FOUND
    assert post(server, proxy, "/v1/fleet/../control/list-nodes") == httpx.codes.NOT_FOUND
    assert post(server, proxy, "/v1/fleet/register-node") == httpx.codes.UNAUTHORIZED  # SuperNodes pass
    authority = server.layout.server / AUTHORITY
    assert check_link(server.address, authority).control_open
    assert not check_link(proxy, authority).control_open


def test_a_stranger_takes_no_task_of_a_run(server):
    assert post(server, server.address, "/v1/runtime/acquire-task") == httpx.codes.UNAUTHORIZED


def test_nor_through_the_proxy(server, proxy):
    assert post(server, proxy, "/v1/runtime/acquire-task") == httpx.codes.NOT_FOUND


def test_a_run_that_no_silo_joins_ends_in_time_and_says_why(server):
    layout = server.layout
    stage_app(layout.app, ROOT / "configs/smoke.yaml")
    run_dir = layout.runs / "nobody"
    given = AppConfig(CONFIG_IN_APP, "queries.hello_timeout_s=3", str(run_dir))
    layout.run_config.write_text(given.to_toml())
    with pytest.raises(FederationError, match="joined"):
        submit_and_wait(server.flower, layout.app, layout.run_config, run_dir, print)
