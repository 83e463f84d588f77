"""A service and a browser, and a page that watches what it does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from client.http import Accel
from client.local import LocalStack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    started = LocalStack(tmp_path_factory.mktemp("home"), port=0, say=lambda _: None)
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def service(stack: LocalStack) -> Iterator[tuple[Accel, str]]:
    with Accel(stack.url) as api:
        yield api, stack.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "install Chromium, or leave these tests out by -m 'not browser'"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, service: tuple[Accel, str]) -> Iterator[Page]:
    """A page that fails the test when anything is fetched from elsewhere or an error is logged."""
    _, url = service
    opened = browser.new_page()
    elsewhere: list[str] = []
    errors: list[str] = []
    opened.on(
        "request", lambda request: None if request.url.startswith((url, "data:")) else elsewhere.append(request.url)
    )
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert (elsewhere, errors) == ([], [])
