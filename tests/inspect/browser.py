"""A real headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver) with nothing but urllib."""
from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window. ``size``: width and height in pixels."""

    def __init__(self, address: str, profile: Path, size: tuple[int, int] = (1280, 1000)) -> None:
        self._address = address
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "--hide-scrollbars",
            "--force-device-scale-factor=1", "--force-prefers-reduced-motion",
            "--proxy-server=127.0.0.1:9",  # whatever asks the network gets an error
        ]
        options: dict[str, Any] = {"args": arguments}
        binary = shutil.which("chromium") or shutil.which("google-chrome")
        if binary:
            options["binary"] = binary
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, kind, method=method)
        # The system's proxy settings are not for this.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as fault:
            raise AssertionError(json.load(fault)["value"]["message"]) from None

    def _do(self, method: str, path: str, body: object = None) -> Any:
        return self._call(method, f"/session/{self._session}{path}", body)

    def open(self, path: Path) -> None:
        """Load a file and wait until its script has run."""
        self._do("POST", "/url", {"url": path.resolve().as_uri()})
        for _ in range(200):
            if self.run("return document.documentElement.dataset.ready") == "yes":
                return
            time.sleep(0.05)
        raise AssertionError(f"the page's script did not finish; console: {self.console()}")

    def run(self, script: str, *arguments: object) -> Any:
        """The value that JavaScript returns; ``arguments[0]``, ... are its arguments."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def hover(self, selector: str) -> None:
        """Scroll to an element and move the real pointer onto its middle."""
        found = self._do("POST", "/element", {"using": "css selector", "value": selector})
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        origin = {_ELEMENT: found[_ELEMENT]}
        moves = [{"type": "pointerMove", "duration": 0, "x": dx, "y": 0, "origin": origin} for dx in (1, 0)]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}
        self._do("POST", "/actions", {"actions": [pointer]})

    def click(self, selector: str) -> None:
        """Click an element as a person would."""
        found = self._do("POST", "/element", {"using": "css selector", "value": selector})
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        self._do("POST", f"/element/{found[_ELEMENT]}/click", {})

    def console(self) -> list[str]:
        """Everything on the console since the last call: errors, warnings, refused requests."""
        return [entry["message"] for entry in self._do("POST", "/se/log", {"type": "browser"})]

    def resize(self, width: int | None, height: int = 1000) -> None:
        """Let pages see a screen of that size; None: the window's own again."""
        if width is None:
            command, parameters = "Emulation.clearDeviceMetricsOverride", {}
        else:
            command = "Emulation.setDeviceMetricsOverride"
            parameters = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: Path) -> None:
        """Save the window as PNG."""
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def close(self) -> None:
        """End the session."""
        self._do("DELETE", "")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile under ``folder``; AssertionError with advice when none is installed."""
    driver = shutil.which("chromedriver")
    assert driver, "this test needs chromium and chromedriver; .ci/chromium installs them (Debian)"
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    log = (folder / "chromedriver.log").open("w+")
    process = subprocess.Popen([driver, "--port=0"], stdout=log, stderr=subprocess.STDOUT, env=environment)
    window = None
    try:
        port = None
        for _ in range(200):
            log.flush()
            match = re.search(r"started successfully on port (\d+)", (folder / "chromedriver.log").read_text())
            if match:
                port = match[1]
                break
            time.sleep(0.05)
        assert port, (folder / "chromedriver.log").read_text()
        window = Browser(f"http://127.0.0.1:{port}", folder / "profile")
        yield window
    finally:
        if window is not None:
            window.close()
        process.terminate()
        process.wait(20)
        log.close()
