# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
import types
from pathlib import Path

import pytest

from clients import node
from fedcpsc.errors import ConfigError

APP = Path(__file__).parents[2]


@pytest.fixture
def opened(monkeypatch):
    """Folders and sockets opened, in order; no model is loaded."""
    seen = []
    monkeypatch.setattr(node, "_targets", {})
    monkeypatch.setattr(node, "_open", lambda kind, place: seen.append((kind, place)) or object())
    return seen


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("silos: {count: 3}\n")
    return str(path)


def test_a_deployed_node_uses_its_socket_whatever_the_run_says(opened, config):
    own = {"gatekeeper-socket": "/run/silo.sock", "partition-id": 0, "num-partitions": 3}
    node.target_of(own, {"silos": "/etc", "config": config}, APP, group="2")
    assert opened == [("gatekeeper-socket", "/run/silo.sock")]


def test_a_node_with_a_folder_uses_it_whatever_the_run_says(opened, config):
    own = {"silo-dir": "/srv/silo", "partition-id": 0, "num-partitions": 3}
    node.target_of(own, {"silos": "/etc", "config": config}, APP, group="2")
    assert opened == [("silo-dir", "/srv/silo")]


def test_a_simulated_node_uses_the_folder_of_its_partition(opened, config):
    node.target_of({"partition-id": 2, "num-partitions": 3}, {"silos": "/data/silos", "config": config}, APP)
    assert opened == [("silo-dir", "/data/silos/2")]


def test_without_a_folder_in_the_run_the_configs_own_is_taken(opened, config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    node.target_of({"partition-id": 1, "num-partitions": 3}, {"config": config}, APP)
    assert opened == [("silo-dir", str(tmp_path / "silos/1"))]


def test_a_simulated_node_serves_the_silo_that_the_message_is_for(opened, config):
    own = {"partition-id": 1, "num-partitions": 2}
    node.target_of(own, {"silos": "/data/silos", "config": config}, APP, group="2")
    assert opened == [("silo-dir", "/data/silos/2")]


def test_a_message_names_no_folder_but_a_number(opened, config):
    with pytest.raises(ValueError, match="invalid literal"):
        node.target_of({"partition-id": 1, "num-partitions": 2}, {"silos": "/data", "config": config}, APP, "../x")
    assert opened == []


@pytest.mark.parametrize("own", [{}, {"partition-id": 0}, {"partition-id": 0, "num-partitions": 2, "site": "x"}])
def test_any_other_node_is_refused(opened, config, own):
    with pytest.raises(ConfigError, match="gatekeeper-socket"):
        node.target_of(own, {"silos": "/data", "config": config}, APP)
    assert opened == []


def test_a_silo_is_opened_once(opened, config):
    own = {"silo-dir": "/srv/silo"}
    assert node.target_of(own, {}, APP) is node.target_of(own, {}, APP)
    assert len(opened) == 1


def test_a_silo_that_failed_to_open_is_tried_again(monkeypatch):
    tries = iter([ConfigError("not yet"), None])

    def opening(kind, place):
        if error := next(tries):
            raise error
        return types.SimpleNamespace()

    monkeypatch.setattr(node, "_targets", {})
    monkeypatch.setattr(node, "_open", opening)
    with pytest.raises(ConfigError):
        node.target_of({"silo-dir": "/srv"}, {}, APP)
    assert node.target_of({"silo-dir": "/srv"}, {}, APP) is not None


def test_the_relay_imports_no_torch():
    code = "import sys, clients.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=APP, check=False).returncode == 0


def test_the_server_app_imports_no_torch_before_the_silos_have_joined():
    code = "import sys, server.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=APP, check=False).returncode == 0
