# SPDX-License-Identifier: Apache-2.0
"""deploy/: each file is well-formed, and says what the documentation page, which is run by a test, says."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from support.documented import ROOT, blocks, leaf_command
from support.nginx import NGINX, shipped_site

from fedcpsc.launch.deployment import members
from fedcpsc.launch.deployment.layout import Layout

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSED = sorted((DEPLOY / "docker").glob("*.yaml"))
INSTALLED = "/opt/fedcpsc/bin"


def commands(text):
    """Every call of a program of ours or Flower's, its words split as a shell would."""
    text = re.sub(r"\\\n\s*", " ", text)
    return [shlex.split(line) for line in re.findall(r"(?:fedcpsc|flower-\w+) [^\n|;]*", text)]


def of_unit(path):
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = re.findall(r"^Exec\w+=(\S+.*)$", text, re.MULTILINE)
    return [shlex.split(line.removeprefix(f"{INSTALLED}/")) for line in lines]


def of_services(path):
    for service in yaml.safe_load(path.read_text())["services"].values():
        command = service.get("command", "")
        yield from commands(command if isinstance(command, str) else command[-1])


CALLS = [(path.name, words) for path in UNITS for words in of_unit(path)]
CALLS += [(path.name, words) for path in COMPOSED for words in of_services(path)]


def test_every_process_of_the_page_is_there_twice_as_a_service_and_as_a_container():
    programs = [
        words[0] for _, words in CALLS if words[1:3] != ["policy", "check"] and words[1:3] != ["deploy", "check"]
    ]
    assert sorted(programs) == sorted(2 * ["fedcpsc", "flower-superlink", "flower-superexec", "flower-supernode"])


@pytest.mark.parametrize(("name", "words"), [c for c in CALLS if c[1][0] == "fedcpsc"], ids=str)
def test_our_own_commands_parse(name, words):
    command, arguments = leaf_command(words[1:])
    command.make_context(command.name, arguments)


@pytest.mark.parametrize(("name", "words"), [c for c in CALLS if c[1][0] != "fedcpsc"], ids=str)
def test_flowers_programs_get_the_options_that_the_page_gives_them(name, words):
    page = "\n".join(block.text for block in blocks(ROOT / "docs/deployment.md", "bash"))
    (shown,) = [call for call in commands(page) if call[0] == words[0]]
    assert {word for word in words if word.startswith("--")} == {word for word in shown if word.startswith("--")}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(path, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for unit in UNITS:  # they name each other
        text = unit.read_text().replace(INSTALLED, str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text)
    # users and folders are the machine's own
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_no_unit_runs_as_root_or_may_gain_anything(path):
    lines = path.read_text().splitlines()
    users = [line for line in lines if line.startswith("User=")]
    assert len(users) == 1
    assert users != ["User=root"]
    assert {"NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"} <= set(lines)


def test_what_dies_is_started_again_by_itself_and_takes_nothing_with_it(tmp_path):
    deployed = [
        members.superlink(Layout(tmp_path), 1),
        members.superexec(Layout(tmp_path), 1),
        members.gatekeeper(Layout(tmp_path), 0, tmp_path, tmp_path / "s"),
        members.supernode(Layout(tmp_path), 0, 1, 2, tmp_path / "s"),
    ]
    for member, name in zip(deployed, ("superlink", "superexec", "gatekeeper", "supernode"), strict=True):
        unit = (DEPLOY / f"systemd/fedcpsc-{name}.service").read_text().splitlines()
        assert "Restart=on-failure" in unit
        assert f"RestartSec={member.restart_s:g}" in unit, "as fedcpsc deploy local does it"
        assert not any(re.match("(Requires|BindsTo|PartOf)=", line) for line in unit)
    assert member.restart_s >= 60, "sooner, the SuperLink refuses a SuperNode that was killed"


def test_the_gatekeeper_has_no_network_and_the_supernode_cannot_see_the_silo():
    gatekeeper, supernode = (
        (DEPLOY / f"systemd/fedcpsc-{name}.service").read_text() for name in ("gatekeeper", "supernode")
    )
    assert "PrivateNetwork=yes" in gatekeeper
    (silo,) = re.findall(r"gatekeeper serve (\S+)", gatekeeper)
    (hidden,) = re.findall(r"^InaccessiblePaths=-(\S+)", supernode, re.MULTILINE)
    assert Path(silo).is_relative_to(hidden)
    assert re.findall(r"^User=(.*)", gatekeeper, re.M) != re.findall(r"^User=(.*)", supernode, re.M)


@pytest.mark.parametrize("path", COMPOSED, ids=lambda path: path.stem)
def test_a_compose_file_names_only_what_is_there(path):
    composed = yaml.safe_load(path.read_text())
    assert set(composed) - {"volumes", "x-flower", "x-fedcpsc"} == {"name", "services"}
    for name, service in composed["services"].items():
        assert "image" in service
        assert set(service.get("depends_on", [])) <= set(composed["services"])
        mode = service.get("network_mode", "none")
        assert mode == "none" or mode.removeprefix("service:") in composed["services"]
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("../"):
                assert (path.parent / source).exists()
            elif not source.startswith("./"):
                assert source in composed["volumes"]
        if name != "proxy":  # nginx binds its port as root and drops to a user of its own
            assert service["user"].split(":")[0] not in ("", "0", "root")
            build = service["build"]
            assert (path.parent / build["context"] / build["dockerfile"]).is_file()


def test_containers_keep_the_two_users_of_a_silo_apart():
    services = yaml.safe_load((DEPLOY / "docker/silo.yaml").read_text())["services"]
    gatekeeper, supernode = services["gatekeeper"], services["supernode"]
    assert gatekeeper["user"] != supernode["user"]
    assert gatekeeper["network_mode"] == "none"
    assert set(gatekeeper["volumes"]) & set(supernode["volumes"]) == {"socket:/run/fedcpsc"}


def test_the_dockerfile_copies_what_is_there_and_ends_as_a_user_without_rights(tmp_path):
    parser = DockerfileParser(str(tmp_path))
    parser.content = (DEPLOY / "docker/Dockerfile").read_text()
    steps = [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}
    assert {name for name, _ in steps} <= known
    assert steps[0][0] == "FROM"
    assert steps[-1] == ("USER", "flower")
    let_in = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()
    for name, value in steps:
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), value
                assert f"!{source}" in let_in, "whole, by its name: engines differ about **"
    packaged = yaml.safe_load((DEPLOY / "docker/silo.yaml").read_text())["services"]
    made = "\n".join(value for name, value in steps if name == "RUN")
    for service in packaged.values():
        assert f"--uid {service['user'].split(':')[0]}" in made
        assert all(f"--gid {group}" in made for group in service["group_add"])


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_reads_its_file(tmp_path):
    from fedcpsc.launch.deployment.certificates import make_authority, make_server_certificate

    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["localhost"])
    command = shipped_site(tmp_path, {"/srv/federation": str(tmp_path)})
    done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
