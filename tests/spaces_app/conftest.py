"""One page for all tests of a module, and a browser where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.spaces_app.serving import Page, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def page_server() -> Iterator[Page]:
    """The page that `phard demo` serves; it talks to the Hub on loopback and has no token."""
    os.environ.pop("HF_TOKEN", None)
    with served() as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser."""
    if CHROMIUM is None:
        pytest.skip("NO BROWSER: install chromium (apt-get install chromium) to see the page as a visitor does")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--disable-component-update"])
        yield chromium
        chromium.close()
