"""nginx with the configuration that is shipped, its paths and ports put where a test can have them."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.documented import ROOT

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
