# SPDX-License-Identifier: Apache-2.0
"""docs/deployment.md, command by command: three "machines" on loopback, TLS, authentication, a run to its end."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from support.documented import ROOT, Block, blocks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE = ROOT / "docs/deployment.md"
EVERY = "every machine"


@dataclass
class Machine:
    """A folder with an environment of its own, in which the page's blocks are run."""

    folder: Path
    values: dict[str, str]
    exports: str = ""
    running: list[subprocess.Popen] = field(default_factory=list)

    def begin(self, block: Block) -> subprocess.Popen | None:
        """Starts a block, and leaves it running where its title says so; or keeps its variables, with ours."""
        if block.text.startswith("export"):
            names = "|".join(self.values)
            self.exports += re.sub(rf"\b({names})=\S+", lambda m: f"{m[1]}={self.values[m[1]]}", block.text)
            return None
        command = ["bash", "-euo", "pipefail", "-c", self.exports + self._exec(block)]
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": paths, "OMP_NUM_THREADS": "1", "NO_PROXY": "localhost,127.0.0.1"}
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"--- {block}\n")
            log.flush()
            process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if block.title.endswith("keeps running"):
            self.running.append(process)
            return None
        return process

    @staticmethod
    def _exec(block: Block) -> str:
        return f"exec {block.text}" if block.title.endswith("keeps running") else block.text

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def stop(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.running):
            try:
                process.wait(10)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def machines():
    """The server and two silos, in short paths: a socket's is limited."""
    base = Path(tempfile.mkdtemp(prefix="deployment-", dir="/tmp"))
    port = str(free_port())
    made = {}
    for name, silo in (("server", ""), ("silo-0", "0"), ("silo-1", "1")):
        (base / name).mkdir()
        (base / name / "fedcpsc").symlink_to(ROOT)
        values = {"LINK": "localhost", "PORT": port, "BIND": "127.0.0.1", "NODE_PORT": str(free_port()), "SILO": silo}
        made[name] = Machine(base / name, values)
    yield made
    for machine in reversed(made.values()):
        machine.stop()
        print(machine.log())  # shown where the test failed
    shutil.rmtree(base)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_page_sets_up_a_federation_that_runs_to_its_end(machines):
    server, silos = machines["server"], [machines["silo-0"], machines["silo-1"]]

    def link_is_up():
        try:
            url = f"https://localhost:{server.values['PORT']}/health"
            trusted = ssl.create_default_context(cafile=server.folder / "ca.crt")
            return httpx.get(url, verify=trusted, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    for block in blocks(PAGE, "bash"):
        where = block.title.removesuffix(", keeps running")
        there = {EVERY: [server, *silos], "server": [server], "each silo": silos}[where]
        begun = [(machine, machine.begin(block)) for machine in there]
        for machine, process in begun:
            assert process is None or process.wait(300) == 0, f"{block}\n{machine.log()[-4000:]}"
        if "flower-superlink" in block.text:
            until(link_is_up)
        if "gatekeeper serve" in block.text:
            until(lambda: all((silo.folder / "gatekeeper.sock").exists() for silo in silos))
        for number, silo in enumerate(silos):  # what the page has people hand over
            if (server.folder / "ca.crt").exists():
                shutil.copy(server.folder / "ca.crt", silo.folder)
            if (silo.folder / "node.pub").exists():
                shutil.copy(silo.folder / "node.pub", server.folder / f"silo-{number}.pub")

    result = json.loads((server.folder / "runs/first/result.json").read_text())
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    assert [silo["answers"] for silo in result["silos"]] == [400, 400]
    assert (server.folder / "runs/first/student.safetensors").exists()
    for silo in silos:
        assert "spent 400" in silo.log()
        assert "sound: True" in silo.log()
