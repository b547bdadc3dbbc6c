"""Debian's Chromium, driven by playwright: a page's warnings and errors all count."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

WAIT_MS = 60_000
"""The machine may be busy; no test is about how quick it is."""

PHONE = {"width": 360, "height": 740}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window. In its sandbox root can't run it."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            await found.close()


class Looking:
    """A page, and what the browser complained of: errors, warnings, violations of the content security policy."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def section(self, name: str) -> Locator:
        """A section of the status page."""
        return self.page.locator(f"#{name}")

    async def shows(self, name: str, *texts: str) -> None:
        """Wait until a section shows these texts."""
        for text in texts:
            await self.section(name).get_by_text(text).first.wait_for()

    async def shows_not(self, name: str, text: str) -> None:
        """Wait until it does not."""
        await self.section(name).get_by_text(text).first.wait_for(state="hidden")

    async def barriers(self) -> list[str]:
        """What axe finds that keeps people from reading the page."""
        found = await Axe().run(self.page)
        return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found.response["violations"]]


@asynccontextmanager
async def looking(browser: Browser, url: str, **context: Any) -> AsyncIterator[Looking]:
    """The page at `url`, in a profile of its own. Whatever the browser complains of fails the test."""
    profile = await browser.new_context(**context)
    profile.set_default_timeout(WAIT_MS)
    try:
        looker = Looking(await profile.new_page())
        await looker.page.goto(url)
        await looker.page.get_by_role("status").get_by_text("Live").wait_for()
        yield looker
        assert looker.complaints == []
    finally:
        await profile.close()
