"""A headless Chromium for tests: it opens a file and remembers what the page said, asked for and got wrong.

A test file gets the fixtures by ``pytest_plugins = ["browser"]``. Without Chromium such tests are skipped, or fail if
RUNNER_TEST_BROWSER says ``required``. (PYTEST_DONT_REWRITE: it may be imported before pytest takes it as a plugin.)
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = os.environ.get("RUNNER_TEST_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --disable-extensions --disable-default-apps "
    "--disable-dev-shm-usage --hide-scrollbars --force-color-profile=srgb"
).split()
"""WebGL is drawn by the CPU; nothing is looked up or updated; no /dev/shm, which is small in containers."""
PATIENCE_MS = 15_000
OWN = ("file:", "blob:", "data:")


class Tab:
    """A page of its own profile. ``console`` and ``errors`` hold texts, ``requests`` URLs, all since it was made.

    ``page`` is Playwright's, for all that is not here: ``click``, ``evaluate``, ``locator``, ``set_viewport_size``,
    ``emulate_media(media="print", color_scheme="dark")``.
    """

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.console: list[str] = []
        self.errors: list[str] = []
        self.requests: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"{request.url[:200]}: {request.failure}"))

    def forget(self) -> None:
        """Forget what was said and asked for until now."""
        for heard in (self.console, self.errors, self.requests):
            heard.clear()

    def open(self, file: Path, fragment: str = "") -> None:
        """Open a file from the disk and wait until it is loaded."""
        self.page.goto(file.resolve().as_uri() + fragment, wait_until="load")

    @property
    def outside(self) -> list[str]:
        """What it asked for that is neither a file nor inside the page."""
        return [url for url in self.requests if not url.startswith(OWN)]

    @property
    def files(self) -> list[str]:
        """The names of the files that it read, the page itself among them."""
        return [url.rsplit("/", 1)[-1] for url in self.requests if url.startswith("file:")]

    def assert_quiet(self) -> None:
        """Fail if the page had an error, a warning in its console, or asked for anything outside."""
        wrong = self.errors + self.console + self.outside
        assert not wrong, wrong

    def picture(self, selector: str = "") -> np.ndarray:
        """Return what is to be seen of an element, or of the window, as rows of RGB pixels."""
        shot = self.page.locator(selector).screenshot() if selector else self.page.screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def expect(self, selector: str) -> Any:
        """Return Playwright's assertions on what is so selected; they wait. (The page evaluates no text.)"""
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE_MS)
        return expect(self.page.locator(selector))

    def _heard(self, message: Any) -> None:
        # Of a program that draws on the CPU, Chromium says that reading pixels back is slow.
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            self.console.append(f"{message.type}: {message.text}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a file. Playwright keeps an event loop running: no other test may meet that."""
    if not shutil.which(CHROMIUM):
        missing = f"no Chromium at {CHROMIUM}: make browser installs it"
        if os.environ.get("RUNNER_TEST_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=False)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def fresh_tab(browser: Any) -> Iterator[Tab]:
    """A page of its own profile, 1000 × 700 pixels, light."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, color_scheme="light")
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield Tab(context)
    finally:
        context.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A fresh page for one test."""
    with fresh_tab(browser) as one:
        yield one
