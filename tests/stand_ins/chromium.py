"""The browser that the page is tested in: a Chromium of this machine, driven over a pipe."""

import contextlib
import shutil
from urllib.parse import urlsplit

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


@contextlib.contextmanager
def loading(page):
    """A function that shows a file as new; afterwards no page fetched or reported anything."""
    troubles, shown = [], []

    def load(path, scheme="light"):
        shown.append(path.as_uri())
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(media="screen", color_scheme=scheme)
        page.goto("about:blank")  # from an address with #run= it would stay in the same document
        page.goto(path.as_uri())
        return page

    def requested(request):
        if urlsplit(request.url).scheme != "data" and request.url not in ("about:blank", *shown):
            troubles.append(f"asked for {request.url}")

    watched = {
        "console": lambda message: troubles.append(message.text),
        "pageerror": lambda error: troubles.append(str(error)),
        "request": requested,
    }
    for event, note in watched.items():
        page.on(event, note)
    yield load
    page.evaluate("localStorage.clear()")
    for event, note in watched.items():
        page.remove_listener(event, note)
    assert not troubles, troubles
