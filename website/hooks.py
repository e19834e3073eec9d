# SPDX-License-Identifier: Apache-2.0
"""mkdocs hooks: the generated reference, files of the repository that pages link to, and a list of external links.

External links are listed, not fetched: the site is built where there may be no network.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.reference import pages

log = logging.getLogger("mkdocs.hooks.website")

ROOT = Path(__file__).resolve().parent.parent
LIST = "external-links.txt"

_OUTSIDE = re.compile(r"\]\(\.\./(?P<path>[^)#\s]+)")
_EXTERNAL = re.compile(r'href="(?P<url>https?://[^"]+)"')

_external: dict[str, set[str]] = {}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the reference, and the files outside `docs/` that its pages link to."""
    _external.clear()
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    for source in sorted(Path(config.docs_dir).glob("*.md")):
        for match in _OUTSIDE.finditer(source.read_text(encoding="utf-8")):
            target = ROOT / match["path"]
            if target.is_file() and files.get_file_from_path(match["path"]) is None:
                files.append(File.generated(config, match["path"], abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of `docs/` lead to the copies that `on_files` added."""
    return _OUTSIDE.sub(r"](\g<path>", markdown) if "/" not in page.file.src_uri else markdown


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Collects the page's external links."""
    for match in _EXTERNAL.finditer(html):
        _external.setdefault(match["url"], set()).add(page.file.src_uri)
    return html


def on_post_build(*, config: MkDocsConfig) -> None:
    """Writes the list: an external link and the pages it stands on, a line each."""
    lines = [f"{url}\t{', '.join(sorted(_external[url]))}\n" for url in sorted(_external)]
    (Path(config.site_dir) / LIST).write_text("".join(lines), encoding="utf-8")
    log.info("%d external links, not fetched, are listed in %s", len(lines), LIST)
