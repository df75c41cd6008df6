"""The browser that the page is tested in: a Chromium of this machine, driven over a pipe."""

import contextlib
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# No sandbox: CI runs as root. The rest: it does nothing but show the page.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find():
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def start():
    from playwright.sync_api import sync_playwright  # here: other tests run where it is missing

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), headless=True, args=FLAGS)
        yield browser
        browser.close()
