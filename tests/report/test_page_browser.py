"""The page as a reader has it: in a Chromium without a window, from a file."""

import re
from dataclasses import replace

import numpy as np
import pytest
import stand_ins.chromium
from made_up.runs import at_edges, make_run, make_vision_run
from playwright.sync_api import expect
from scipy.stats import binomtest

from tsv_bench.report.page import write_page
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import make_sheets

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("few_resamples")]
TIMEOUT = 300_000  # milliseconds, for what takes a few unless it is broken
expect.set_options(timeout=TIMEOUT)
METHODS = ("zero_shot", "task_arithmetic", "ties", "tsv_merge", "tsv_compress", "individual")
NASTY = "</script><img src=x onerror=\"document.title='broken'\"><b>x</b>"


@pytest.fixture(scope="module")
def browser():
    with stand_ins.chromium.start() as started:
        yield started


@pytest.fixture(scope="module")
def evaluated():
    """Make two seeds of six methods, a Run without correctness, and one of another suite."""
    made = [make_run(m, s, stored_bytes=8_000_000 * (s + 1)) for m in METHODS for s in (0, 1)]
    made[7] = (at_edges(made[7][0]), made[7][1])  # TSV-M, seed 1
    lost, _ = make_run("weight_average", label=NASTY)
    return [*made, (lost, None), make_vision_run("task_arithmetic", fingerprint="f")]


@pytest.fixture(scope="module")
def path(evaluated, tmp_path_factory):
    return write(evaluated, tmp_path_factory.mktemp("page"))


def write(evaluated, folder):
    tables = build_tables(evaluated)
    return write_page(evaluated, tables, make_sheets(tables), folder)


@pytest.fixture(scope="module")
def tab(browser):
    """Open one page for all tests, which takes longer than what most of them do with it."""
    page = browser.new_context().new_page()
    page.set_default_timeout(TIMEOUT)
    return page


@pytest.fixture
def load(tab):
    with stand_ins.chromium.loading(tab) as load:
        yield load


def rows_of(page):
    return page.locator("#runs-table tbody tr")


def column(page, name):
    """Return the texts of a column of the Runs' table, from above."""
    heads = page.locator("#runs-table thead th").all_inner_texts()
    heads = [re.sub(r" [▲▼]", "", text) for text in heads]
    return rows_of(page).locator(f":nth-child({heads.index(name) + 1})").locator(
        "xpath=self::td | self::th").all_inner_texts()  # fmt: skip


def cells(page, region):
    """Return the rows of a table, each a list of texts."""
    table = page.get_by_role("region", name=region, exact=True).locator("table")
    return table.evaluate("(t) => [...t.rows].map((r) => [...r.cells].map((c) => c.innerText))")


def wider_than(page, *widths):
    """Return the widths of a window in which the page scrolls sideways."""
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("window.innerWidth") == width
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(width)
    return found


def test_all_runs_are_there_and_what_they_say_is_text(load, path, evaluated):
    page = load(path)
    assert rows_of(page).count() == len(evaluated)
    assert page.locator("#count").inner_text() == f"{len(evaluated)} of {len(evaluated)} Runs"
    assert page.title() == "tsv-bench report"
    assert page.get_by_role("button", name=NASTY, exact=True).is_visible()


def test_columns_sort_both_ways_and_missing_values_stay_last(load, path, evaluated):
    page = load(path)
    absolute = sorted((100 * run.absolute for run, _ in evaluated), reverse=True)
    shown = [float(text.split()[0]) for text in column(page, "absolute")]
    assert shown == pytest.approx(absolute, abs=0.051), "the best first, at the start"
    head = page.get_by_role("columnheader", name="MB a task")
    assert head.get_attribute("aria-sort") == "none"
    sizes = [run.stored_bytes / 8e6 for run, _ in evaluated if run.stored_bytes]
    for sort, expected in (("descending", sorted(sizes)[::-1]), ("ascending", sorted(sizes))):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == sort
        *known, first, second = column(page, "MB a task")
        assert [float(text) for text in known] == pytest.approx(expected, abs=0.051)
        assert first == second == "–"
    assert page.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1


def test_filters_leave_what_fits_all_of_them(load, path):
    page = load(path)
    page.get_by_label("Method", exact=True).select_option("ties")
    assert rows_of(page).count() == 2
    page.get_by_label("Seed", exact=True).select_option("1")
    assert column(page, "seed") == ["1"] and column(page, "suite") == ["mini8"]
    page.get_by_label("Suite", exact=True).select_option("vision8")
    assert page.locator("#count").inner_text().endswith("no Run fits all filters")
    page.get_by_role("button", name="Show all").click()
    expect(rows_of(page)).to_have_count(14)


def test_details_are_the_runs(load, path, evaluated):
    page = load(path)
    run = next(run for run, _ in evaluated if run.method == "tsv_merge" and run.seed == 1)
    page.goto(f"{path.as_uri()}#run={run.fingerprint}")
    detail = page.locator("#detail")
    assert detail.locator("h2").inner_text() == "TSV-M, mini, mini8, seed 1"
    assert page.evaluate("document.activeElement.id") == "detail-title"
    texts = [run.commit, run.machine, run.created, run.fingerprint, run.normalizer_source]
    texts += ["3.00 edge", "3 of 30 candidates, at their edge", "edge: density"]
    assert not [text for text in texts if text not in page.inner_text("body")]
    head, *tasks = cells(page, "Tasks")
    for row, (task, label) in zip(tasks, run.tasks.items(), strict=True):
        shown = dict(zip(head, row, strict=True))
        score = run.test[task]
        bounds = binomtest(score.correct, score.total).proportion_ci(method="wilson")
        assert shown["task"] == label
        assert shown["accuracy"] == f"{100 * score.accuracy:.1f}"
        assert shown["interval"] == f"[{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"
        assert shown["right"] == f"{score.correct} / {score.total}"
    for title in ("Checkpoints and data", "Versions", "Settings that determine the result"):
        detail.get_by_text(title, exact=True).click()
    assert run.checkpoints["digits"]["sha256"] in detail.inner_text()
    assert '"seed": 1' in detail.locator("pre").inner_text()
    detail.get_by_role("button", name="Close").click()
    assert not detail.is_visible()


def test_published_figures_stand_beside_ours(load, path, evaluated):
    page = load(path)
    run, _ = evaluated[-1]
    assert "(original)" in column(page, "published")[
        column(page, "backbone").index("vit_b32")
    ]  # fmt: skip
    page.goto(f"{path.as_uri()}#run={run.fingerprint}")
    assert "original" in page.locator("#detail").inner_text()
    assert "published absolute" in page.locator("#detail").inner_text()


def test_two_runs_are_compared_image_by_image(load, path, evaluated):
    page = load(path)
    (first, a), (second, b) = (
        next(e for e in evaluated if (e[0].method, e[0].seed) == (method, 1))
        for method in ("tsv_merge", "task_arithmetic")
    )
    for run in (first, second):
        page.get_by_label(f"Compare {run.label}, mini, mini8, seed 1").check()
    head, *tasks, mean = cells(page, "Task by task")
    for row, task in zip(tasks, first.tasks, strict=True):
        shown = dict(zip(head, row, strict=True))
        assert int(shown["only first right"]) == (a[task] & ~b[task]).sum()
        assert int(shown["only second right"]) == (b[task] & ~a[task]).sum()
        difference = 100 * (a[task].mean() - b[task].mean())
        assert signed(shown["difference"]) == pytest.approx(difference, abs=0.051)
        low, high = map(signed, shown["interval"].strip("[]").split(", "))
        assert low < difference < high
    estimate = statistics.difference(*({t: c[t][None] for t in c} for c in (a, b)))
    shown = dict(zip(head, mean, strict=True))
    assert signed(shown["difference"]) == pytest.approx(100 * estimate.value, abs=0.051)
    bounds = [100 * estimate.images.low, 100 * estimate.images.high]
    interval = re.fullmatch(r"\[(.+), (.+)\] approximate", shown["interval"])
    found = [signed(text) for text in interval.groups()]
    # The page's normal approximation against the bootstrap, in points.
    np.testing.assert_allclose(found, bounds, atol=0.25)
    page.get_by_role("button", name="Swap").click()
    assert signed(cells(page, "Task by task")[-1][3]) == -signed(shown["difference"])


def signed(text):
    return float(text.replace("−", "-"))


def test_runs_that_cannot_be_paired_say_why(load, path, evaluated):
    page = load(path)
    lost = next(run for run, correct in evaluated if correct is None)
    page.get_by_label("First", exact=True).select_option(lost.fingerprint)
    page.get_by_label("Second", exact=True).select_option(evaluated[0][0].fingerprint)
    assert "per-image correctness" in page.locator("#comparison .warning").inner_text()
    assert cells(page, "Task by task")[1][5] == "–"
    page.get_by_label("Second", exact=True).select_option(evaluated[-1][0].fingerprint)
    assert "No task is in both." in page.locator("#comparison").inner_text()


def test_the_keyboard_is_enough(load, path):
    page = load(path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    head = page.locator("#runs-table").get_by_role("columnheader", name="alpha")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert head.get_by_role("button").evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    outline = head.get_by_role("button").evaluate("(b) => getComputedStyle(b).outlineStyle")
    assert outline == "solid"
    name = rows_of(page).first.get_by_role("button")
    name.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail:not([hidden])")
    page.get_by_role("button", name="Close").press("Enter")
    assert name.evaluate("(button) => button === document.activeElement")


def test_every_control_has_a_name(load, path):
    page = load(path)
    controls = page.locator("button, select, input")
    unnamed = controls.evaluate_all(
        "(all) => all.filter((c) => !(c.getAttribute('aria-label') || c.labels?.length"
        " || c.textContent)).map((c) => c.outerHTML)"
    )
    assert controls.count() > 10 and not unnamed


@pytest.mark.parametrize("system", ["light", "dark"])
def test_light_and_dark(load, path, system):
    page = load(path, scheme=system)
    button = page.get_by_role("button", name="Dark")
    other = {"light": "dark", "dark": "light"}[system]
    assert button.get_attribute("aria-pressed") == str(system == "dark").lower()
    assert look(page) == system
    button.click()
    assert look(page) == other
    assert button.get_attribute("aria-pressed") == str(other == "dark").lower()

    # The choice is kept; the browser stores it a moment later.
    assert any((page.reload(), look(page))[1] == other for _ in range(20))


def look(page):
    style = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    paper, ink = (sum(map(int, re.findall(r"\d+", color)[:3])) / 765 for color in style)
    assert abs(paper - ink) > 0.7, "text on its ground can be read"
    return "light" if paper > ink else "dark"


def test_no_width_scrolls_sideways(load, path, evaluated):
    page = load(path)
    assert not wider_than(page, 360, 390, 768, 1280)
    for run in (evaluated[0][0], evaluated[2][0]):
        page.locator(f"tr[data-run='{run.fingerprint}'] input").check()
    page.goto(f"{path.as_uri()}#run={evaluated[-1][0].fingerprint}")
    for title in page.locator("summary").all():
        title.click()
    assert page.locator("#comparison table").count() == 2
    for width in (360, 390, 768, 1280):
        assert not wider_than(page, width)
        suites = (page.locator(f"#runs-table .{kind}").last for kind in ("wider", "where"))
        assert [suite.is_visible() for suite in suites] == [width > 640, width <= 640]  # 40 rem


def test_print_has_the_tables_and_not_the_controls(load, path):
    page = load(path, scheme="dark")
    page.emulate_media(media="print")
    assert not wider_than(page, 794)  # of A4
    assert look(page) == "light"
    assert not page.locator("#filters").is_visible() and not page.locator("#theme").is_visible()
    assert not page.locator("#compare").is_visible(), "nothing is compared"
    assert page.locator("#runs-table").is_visible() and page.locator("#tables").is_visible()


@pytest.mark.usefixtures("blank_figures")
def test_one_run_and_two_hundred(load, tmp_path):
    run, correct = make_run("tsv_merge", tasks=("digits", "land"))
    page = load(write([(run, correct)], tmp_path / "one"))
    assert rows_of(page).count() == 1
    many = [(replace(run, seed=seed, fingerprint=f"{seed:012x}"), correct) for seed in range(200)]
    tables = build_tables(many[:2])
    page = load(write_page(many, tables, make_sheets(tables), tmp_path))
    assert rows_of(page).count() == 200
    page.get_by_label("Seed", exact=True).select_option("137")
    assert column(page, "seed") == ["137"]
