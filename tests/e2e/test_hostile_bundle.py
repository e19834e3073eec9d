# SPDX-License-Identifier: Apache-2.0
"""A run whose code attacks the silo, sent by `flwr run` to a real SuperNode, as the deployment page has it set up.

The SuperNode runs as the user `nobody`, behind the shipped proxy; the gatekeeper as the user `daemon`. The same run
first asks one query of 100 MB, which has to come through that proxy whole.
"""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from support.documented import ROOT
from support.hostile_outcomes import nothing_was_touched, refused_beyond_the_policy
from support.nginx import NGINX, shipped_proxy
from support.other_users import NODE, needs_other_users, node_environment, served, under
from support.silo_folder import make_folder

from fedcpsc.errors import RefusalCode
from fedcpsc.launch.deployment.certificates import AUTHORITY, make_supernode_key
from fedcpsc.launch.deployment.federation import federation
from fedcpsc.launch.deployment.layout import claimed
from fedcpsc.launch.processes import end, free_ports, marked
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.teachers.manifest import load_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SIDE = 112
LARGE = 8_500  # images of a query: 107 MB
BUDGET = LARGE + 400


@pytest.fixture
def base():
    """A folder that others may pass, in a short path: a socket's is limited."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    needs_other_users()
    base = Path(tempfile.mkdtemp(prefix="bundle-", dir="/tmp"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


def supernode(folder, address, place):
    """A real SuperNode under its own user, with all that is its own in `folder`."""
    environment = node_environment(folder)
    command = [*under(NODE), "flower-supernode", "--superlink", address]
    command += ["--root-certificates", AUTHORITY, "--auth-supernode-private-key", "key"]
    command += ["--host", "127.0.0.1", "--port", str(free_ports(1)[0])]
    command += ["--node-config", f'gatekeeper-socket="{place}"']
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def until(happened, seconds, log):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


def test_a_hostile_bundle_meets_the_wall_and_100_megabytes_pass_the_proxy(base, tmp_path):
    silo, place, node, out = base / "silo", base / "run" / "s", base / "node", tmp_path / "out.json"
    service = {"queue": 4, "connections": 16, "read_timeout_s": 5.0, "query_megabytes": 128.0}
    make_folder(
        silo, policy={"answers": BUDGET, "images_per_query": LARGE, "service": service}, image_shape=(1, SIDE, SIDE)
    )
    bundle = tmp_path / "hostile-bundle"
    shutil.copytree(ROOT / "tests/e2e/hostile_bundle", bundle)
    shutil.copy(ROOT / "tests/gatekeeper/hostile_app.py", bundle)
    with (
        served(silo, place, base / "gatekeeper.log") as gatekeeper,
        claimed(tmp_path / "deployment") as layout,
        federation(layout, []) as server,
        shipped_proxy(layout.server, server.address) as proxy,
    ):
        node.mkdir()
        shutil.copy(layout.server / AUTHORITY, node)
        make_supernode_key(node / "key")
        server.flower.register(node / "key.pub")
        process = supernode(node, proxy, place)
        try:
            until(lambda: "online" in server.flower.nodes().values(), 120, node / "log")
            told = {"attacks": "steal sabotage ask malform gigabyte flood", "silo": str(silo), "pid": gatekeeper.pid}
            told |= {"images": LARGE, "side": SIDE, "out": str(out)}
            run_config = tmp_path / "run.toml"
            run_config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in told.items()))
            run_id = server.flower.submit(bundle, run_config)
            following = server.flower.follow(run_id, tmp_path / "run.log")
            until(lambda: following.poll() is not None, 450, tmp_path / "run.log")
        finally:
            end(marked("FLWR_HOME", str(node / "flwr")))
            process.wait(10)
        assert out.exists(), (tmp_path / "run.log").read_text()[-3000:] + (node / "log").read_text()[-3000:]
        assert gatekeeper.poll() is None
    found = json.loads(out.read_text())
    print(found["large"])  # seconds, for the deployment page
    assert found["large"]["bytes"] > 100e6
    assert found["large"]["answers"] == LARGE
    nothing_was_touched(found["attacked"])
    answers = refused_beyond_the_policy(found["attacked"])
    assert found["small"]["refused"] == RefusalCode.BUDGET, "the flood spent it all"

    ledger = Ledger.open(silo / "ledger.sqlite", load_manifest(silo).population)
    charged = [row for row in ledger.export() if row["kind"] == "charged"]
    spent = ledger.verify().spent.answers
    ledger.close()
    assert spent == BUDGET == sum(row["answers"] for row in charged)
    assert len({row["query_id"] for row in charged}) == len(charged), "none is charged twice"
    assert sum(row["answers"] for row in charged if row["run"] == "hostile") >= 2 + answers
