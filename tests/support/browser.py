# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, driven over a pipe by its DevTools protocol: sizes of screen, light and dark, print."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["BROWSER", "Browser"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of the browser; None where none is installed."""

_PAINTS = """
window.__paints = [];
new PerformanceObserver(list => { for (const entry of list.getEntries()) window.__paints.push(entry.startTime); })
  .observe({type: "largest-contentful-paint", buffered: true});
"""


class Browser:
    """Context manager: one browser with one page.

    Args:
        profile: empty folder for what the browser keeps.
    """

    def __init__(self, profile: Path) -> None:
        self._numbers = itertools.count(1)
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags += ["--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # the browser reads commands from descriptor 3 and writes to 4
        shell = f'exec "$0" "$@" 3<&{commands} 4>&{replies}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, str(BROWSER), *flags, "about:blank"],
            pass_fds=(commands, replies),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        pages = [t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_PAINTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._replies)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the page; its result.

        Raises:
            RuntimeError: the browser refused it.
        """
        return self._call(method, self._session, **parameters)

    def open(self, address: str, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """Loads a page on a screen of so many CSS pixels and waits until all of it is there.

        Args:
            scheme: colours that the reader prefers, "light" or "dark".
            media: "screen" or "print".
        """
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self._events.clear()
        loader = self.call("Page.navigate", url=address)["loaderId"]
        while not any(_loaded(event, loader) for event in self._events):
            self._read()

    def run(self, script: str) -> Any:
        """The value of an expression, or what its promise comes to.

        Raises:
            RuntimeError: the script failed.
        """
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:2000])
        return done["result"].get("value")

    def largest_paint_ms(self) -> float:
        """Milliseconds from the navigation until the largest part of the first screen was painted.

        Raises:
            RuntimeError: nothing was painted within ten seconds.
        """
        wait = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(window.__paints.slice()), 50)))"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # a busy browser tells of a paint some time after it
            if paints := self.run(wait):
                return float(max(paints))
        raise RuntimeError("the browser told of no paint within ten seconds")

    def picture(self, path: Path, box: tuple[float, float, float, float] | None = None) -> None:
        """Saves the page as a PNG, down to its end.

        Args:
            box: left, top, width and height of a part of it, in pixels from the page's beginning; None: all of it.
        """
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        part = size if box is None else dict(zip(("x", "y", "width", "height"), box, strict=True))
        clip = {**part, "scale": 1}
        taken = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def requests(self) -> set[str]:
        """Addresses that the page asked for since it was opened, itself included."""
        sent = [event["params"] for event in self._events if event["method"] == "Network.requestWillBeSent"]
        return {str(each["request"]["url"]) for each in sent}

    def press(self, key: str) -> None:
        """Presses a key, such as "Tab" or "Enter", and lets it go."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            typed = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def complaints(self) -> list[str]:
        """What the console was told since the page was opened: errors, warnings, refusals by the page's policy."""
        wanted = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self._events if event["method"] in wanted]

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._read()).get("id") != number:
            pass
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return dict(reply["result"])

    def _read(self) -> dict[str, Any]:
        """The next message; events are kept."""
        while b"\0" not in self._rest:
            piece = os.read(self._replies, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message = dict(json.loads(text))
        if "method" in message:
            self._events.append(message)
        return message


def _loaded(event: dict[str, Any], loader: str) -> bool:
    """Whether an event says that all of a document is there; those before it may still be reported late."""
    told = event["params"]
    return event["method"] == "Page.lifecycleEvent" and told["name"] == "load" and told["loaderId"] == loader
