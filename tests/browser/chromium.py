"""Chromium as the tests drive it: the one that is installed, without a window."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

_SECONDS = 60.0


class Browser:
    """A page that is waited for, not slept for.

    Args:
        driver: a running browser.
        base: address of the server.
    """

    def __init__(self, driver: Chrome, base: str) -> None:
        self.driver, self.base = driver, base

    def open(self, path: str) -> None:
        """Go to a page of the server."""
        self.driver.get(self.base + path)

    def find(self, xpath: str, *, seconds: float = _SECONDS) -> WebElement:
        """The first visible element of this kind, waited for."""

        def visible() -> WebElement | None:
            elements = self.driver.find_elements(By.XPATH, xpath)
            return next((element for element in elements if element.is_displayed()), None)

        return self.wait(visible, what=xpath, seconds=seconds)

    def click(self, xpath: str, *, seconds: float = _SECONDS) -> None:
        """Click an element as soon as it takes the click."""

        def clicked() -> bool:
            element = self.find(xpath, seconds=seconds)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.wait(clicked, what=f"a click on {xpath}", seconds=seconds)

    def wait_for_text(self, text: str, *, seconds: float = _SECONDS) -> None:
        """Wait until the page says this."""
        self.wait(lambda: text in self.text, what=f"the text {text!r}", seconds=seconds)

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait(
        self, look: Callable[[], Any], *, what: str, seconds: float = _SECONDS, pause: float = 0.3
    ) -> Any:
        """Look again and again until something is there; pages may change under a look."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := look():
                    return found
            except WebDriverException:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{what} did not come; {self.driver.current_url} says:\n{self.text[:2000]}"
                )
            time.sleep(pause)

    def picture(self, name: str) -> None:
        """Keep what is seen, where GCLFLOW_SCREENSHOTS names a folder for it."""
        if folder := os.environ.get("GCLFLOW_SCREENSHOTS"):
            time.sleep(1.0)  # what fades in has come
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


@contextmanager
def chromium(base: str) -> Iterator[Browser]:
    """A headless browser; skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip("no Chromium with its chromedriver is installed")
    options = ChromeOptions()
    options.binary_location = program
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--window-size=1400,1000", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(driver_program))
    try:
        yield Browser(driver, base)
    finally:
        driver.quit()
