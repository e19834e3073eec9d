# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc deploy ...`: what is said and which exit code, where no process needs to be started. The rest is in e2e/."""

import socket
import sys
from pathlib import Path

import pytest
from support.documented import ROOT
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.commands import deploy_local as deployment
from fedcpsc.commands.run_command import Request
from fedcpsc.errors import RunError


@pytest.fixture
def fedcpsc(tmp_path, monkeypatch):
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def no_teachers(monkeypatch):
    def trained(config, console):
        raise AssertionError("teachers were trained before what was wrong was told")

    monkeypatch.setattr(deployment, "make_teachers", trained)


def test_certificate_and_key_say_what_to_do_with_them(fedcpsc, tmp_path):
    made = fedcpsc("deploy", "certificate", "link.example.org")
    assert made.exit_code == 0
    assert "give it to every silo" in made.output
    assert "link.example.org and localhost" in made.output
    again = fedcpsc("deploy", "certificate", "link.example.org", "--days", 7)
    assert again.exit_code == 0
    assert "ca.crt" not in again.output
    assert fedcpsc("deploy", "key", "node").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.crt",
        "ca.key",
        "link.pem",
        "link.key",
        "node",
        "node.pub",
    }
    refused = fedcpsc("deploy", "key", "node")
    assert refused.exit_code == 2
    assert "is there already" in refused.output


@pytest.mark.parametrize("host", ["link.example.org:8000", "https://link.example.org", "a b", "", "*.example.org"])
def test_a_certificate_for_what_is_no_host_is_not_begun(fedcpsc, tmp_path, host):
    refused = fedcpsc("deploy", "certificate", "link.example.org", host)
    assert refused.exit_code == 2
    assert f"HOSTS={host!r}" in refused.output
    assert list(tmp_path.iterdir()) == []


def test_a_name_outside_ascii_is_encoded_as_silos_will_look_for_it(fedcpsc):
    made = fedcpsc("deploy", "certificate", "müller.example")
    assert made.exit_code == 0
    assert "for xn--mller-kva.example (müller.example) and localhost" in made.output


def test_check_takes_no_address_without_a_port_or_with_more_than_one(fedcpsc):
    for address in ("link.example.org", "https://link.example.org:8443", "2001:db8::1:8443"):
        refused = fedcpsc("deploy", "check", address)
        assert refused.exit_code == 2
        assert "must be host:port" in refused.output


def test_check_ends_at_the_first_fault(fedcpsc):
    no_socket = fedcpsc("deploy", "check", "localhost:1", "--socket", "missing.sock")
    assert no_socket.exit_code == 1
    assert "missing.sock" in no_socket.output
    no_authority = fedcpsc("deploy", "check", "localhost:1")
    assert no_authority.exit_code == 1
    assert "get ca.crt from the server's owner" in no_authority.output


def test_zero_silos_and_a_missing_configuration_are_wrong_command_lines(fedcpsc):
    assert fedcpsc("deploy", "local", "--silos", 0).exit_code == 2
    missing = fedcpsc("deploy", "local", "nowhere.yaml")
    assert missing.exit_code == 2
    assert "nowhere.yaml" in missing.output


def test_a_port_that_is_taken(fedcpsc, no_teachers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fedcpsc("deploy", "local", ROOT / "configs/smoke.yaml", "--port", port)
    assert done.exit_code == 1
    assert f"--port={port}: cannot be had" in done.output


def test_a_program_of_flowers_that_is_missing(fedcpsc, no_teachers, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    done = fedcpsc("deploy", "local", ROOT / "configs/smoke.yaml")
    assert done.exit_code == 1
    assert "program='flwr': is not installed" in done.output


def test_a_folder_of_something_else(fedcpsc, no_teachers, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.tex").write_text("")
    done = fedcpsc("deploy", "local", ROOT / "configs/smoke.yaml", "--folder", "thesis")
    assert done.exit_code == 1
    assert "holds something else than a deployment" in done.output


@pytest.mark.parametrize(("silos", "root"), [(None, "silos/smoke"), (2, "silos/smoke"), (5, "silos/smoke-of-5")])
def test_another_number_of_silos_is_another_partition_with_folders_of_its_own(silos, root, tmp_path):
    request = Request(ROOT / "configs/smoke.yaml")
    config = deployment._of_so_many(request, silos, deployment.Layout(tmp_path)).load()
    assert config.silos.count == (silos or 2)
    assert config.silos.root == root
    assert config.output.root == str(tmp_path / "runs")


def test_the_printed_line_runs_the_checkout_where_there_is_one(tmp_path, monkeypatch):
    layout = deployment.Layout(tmp_path / "a b")
    monkeypatch.chdir(ROOT)
    assert f"flwr run . deployment --stream --run-config '{tmp_path}/a b/run.toml'" in deployment._command(layout)
    monkeypatch.chdir(tmp_path)
    assert f"flwr run '{tmp_path}/a b/app/fedcpsc' deployment" in deployment._command(layout)
    assert Path(deployment._command(layout).split("FLWR_HOME='")[1].split("'")[0]) == layout.server / "flwr"


def test_a_second_run_never_writes_over_the_first_and_the_last_is_gone_on_with(tmp_path):
    layout, config = deployment.Layout(tmp_path), Request(ROOT / "configs/digits.yaml").load()
    assert deployment._run_folder(layout, config, resume=False) == tmp_path / "runs/digits"
    with pytest.raises(RunError, match=r"--resume.*begin one with --run"):
        deployment._run_folder(layout, config, resume=True)
    for name in ("digits", "digits-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert deployment._run_folder(layout, config, resume=False) == tmp_path / "runs/digits-3"
    assert deployment._run_folder(layout, config, resume=True) == tmp_path / "runs/digits-2"
