# SPDX-License-Identifier: Apache-2.0
"""nginx with the configuration that is shipped, its paths and ports put where a test can have them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.documented import ROOT

from fedcpsc.launch.processes import free_ports

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # else below /var, where only root may write


def shipped_site(folder: Path, replaced: dict[str, str]) -> list[str]:
    """Writes nginx's files into `folder` and returns the command that takes them.

    Args:
        folder: takes them, and whatever nginx writes.
        replaced: what the shipped file says -> what is said here instead; each must be there.
    """
    text = (ROOT / "deploy/nginx/fedcpsc.conf").read_text(encoding="utf-8")
    for shipped, here in replaced.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    (folder / "site.conf").write_text(text, encoding="utf-8")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n",
        encoding="utf-8",
    )
    assert NGINX is not None
    return [NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]


@contextlib.contextmanager
def shipped_proxy(folder: Path, link: str) -> Iterator[str]:
    """The address of nginx with the shipped configuration, in front of the SuperLink at `link`.

    Args:
        folder: of the server, with its certificate; takes nginx's files.
        link: HOST:PORT.
    """
    (port,) = free_ports(1)
    here = {"/srv/federation": str(folder), "listen 8443": f"listen 127.0.0.1:{port}", "127.0.0.1:8000": link}
    process = subprocess.Popen(shipped_site(folder, here))
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
