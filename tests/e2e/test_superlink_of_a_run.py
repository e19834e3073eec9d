# SPDX-License-Identifier: Apache-2.0
"""Another user of the machine cannot start a run at the SuperLink of `fedcpsc run`, nor read what that needs."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from support.documented import ROOT
from support.other_users import ENVIRONMENT, NODE, as_user, needs_other_users, node_environment, under

from fedcpsc.launch.app_folder import stage_app
from fedcpsc.launch.processes import marked
from fedcpsc.launch.superlink import SuperLink

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONNECTION = '[superlink]\ndefault = "own"\n[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
ASK = """
import sys, urllib.error, urllib.request
for path in sys.argv[2:]:
    kind = {"Content-Type": "application/protobuf"}
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}{path}", b"", kind)
    try:
        print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
READ = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, "rb").read(1)
        print("read", path)
    except OSError:
        pass
"""


def ran(command, environment, folder="/"):
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def test_another_user_cannot_start_a_run():
    needs_other_users()
    with tempfile.TemporaryDirectory(prefix="stranger-") as made, tempfile.TemporaryDirectory() as own:
        folder = Path(made)
        stage_app(folder / "fedcpsc", ROOT / "configs/smoke.yaml")
        environment = {**node_environment(folder), "NO_PROXY": "*"}
        with SuperLink(Path(own)) as link:
            (folder / "flwr/config.toml").write_text(CONNECTION.format(port=link._port))
            theirs = ran([*under(NODE), "flwr", "run", str(folder / "fedcpsc"), "own", "--format", "json"], environment)
            assert "407 Proxy Authentication Required" in theirs, theirs

            paths = ("/health", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/register-node", "/docs")
            codes = ran(as_user(NODE, "-c", ASK, str(link._port), *paths), ENVIRONMENT).split()
            assert codes == ["407"] * len(paths)

            processes = marked("FLWR_HOME", str(link.home))
            assert len(processes) >= 2, "the SuperLink and its SuperExec"
            secrets = [f"/proc/{process.pid}/{name}" for process in processes for name in ("environ", "mem")]
            assert ran(as_user(NODE, "-c", READ, *secrets, str(link.home / "config.toml")), ENVIRONMENT) == ""
            password = link._env["HTTP_PROXY"].split(":")[2].split("@")[0]
            shown = ran([*under(NODE), "ps", "axww", "-o", "args"], ENVIRONMENT)
            assert password not in shown

            assert json.loads(ran(["flwr", "ls", "own", "--format", "json"], link._env).split("\n", 0)[0])["runs"] == []
            log = (Path(own) / "superlink.log").read_text()
            assert password not in log
