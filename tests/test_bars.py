"""Bars in a file: a line at the start, one at the end, and one each half minute between."""

import contextlib
import gc
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import std
from tqdm.contrib.logging import logging_redirect_tqdm

from tsv_bench import bars

COUNT = """
from tsv_bench import bars

for _ in bars.bar(range(3), desc="count"):
    pass
"""


@pytest.fixture
def clock(monkeypatch):
    """A list with the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(std, "time", lambda: now[0])
    return now


@contextlib.contextmanager
def standard_error(is_terminal=False):
    """A text that takes the place of the standard error within the block."""
    text = io.StringIO()
    text.isatty = lambda: is_terminal
    with contextlib.redirect_stderr(text):
        yield text


def lines(text):
    return text.getvalue().splitlines()


def test_a_long_stage_says_its_rate_and_the_time_left_twice_a_minute(clock):
    with standard_error() as text:
        for step in bars.bar(range(20), desc="merging", unit="layer", leave=False):
            clock[0] += 1 if step < 10 else 8
    first, *between, last = lines(text)
    assert first == "merging: 0/20 [00:00<?, ?layer/s]"
    assert last.startswith("merging: 20/20 [01:30<00:00, ")
    assert [line.split("<")[0] for line in between] == [
        "merging: 13/20 [00:34", "merging: 17/20 [01:06",
    ]  # fmt: skip
    assert all("s/layer]" in line for line in between) and "\r" not in text.getvalue()


def test_a_bar_that_is_told_says_where_it_was_when_an_error_ended_it(clock):
    with (
        standard_error() as text,
        pytest.raises(RuntimeError),
        bars.bar(total=2000, desc="data") as bar,
    ):
        bar.update(1000)
        bar.set_postfix(loss="0.1", refresh=False)
        clock[0] += 2
        raise RuntimeError
    assert [line.split(" [")[0] for line in lines(text)] == ["data: 0/2000", "data: 1000/2000"]
    assert text.getvalue().endswith(", loss=0.1]\n")


def test_a_bar_that_was_left_says_no_more():
    """After Ctrl-C the last line is the one that says how to go on."""
    with standard_error() as text:
        for step in bars.bar(range(3), desc="count"):
            if step == 1:
                break
        gc.collect()
    assert len(lines(text)) == 1


def test_messages_bring_no_line_of_a_bar_with_them(clock):
    logger = logging.Logger("test")
    with standard_error() as text:
        logger.addHandler(logging.StreamHandler())
        with logging_redirect_tqdm([logger]), bars.bar(total=2, desc="a") as bar:
            for number in range(5):
                logger.info(f"message {number}")
            bar.update(2)
    said = [line[:7] for line in lines(text)]
    assert said == ["a: 0/2 ", *["message"] * 5, "a: 2/2 "]


@pytest.mark.parametrize(("seconds", "count"), [(1, 0), (3, 1)])
def test_a_bar_with_a_delay_is_silent_about_what_is_quick(clock, seconds, count):
    with standard_error() as text:
        for _ in bars.bar(range(1), desc="heads", delay=2):
            clock[0] += seconds
    assert len(lines(text)) == count


def test_nothing_is_shown_where_it_is_not_wanted():
    with standard_error() as text:
        with bars.showing(False):
            assert list(bars.bar(range(3), desc="a")) == [0, 1, 2]
        assert list(bars.bar(range(3), desc="a", disable=True)) == [0, 1, 2]
        assert lines(text) == []
        with bars.showing(True), bars.bar(total=1, desc="a"):
            assert len(lines(text)) == 1


def test_a_terminal_and_a_notebook_get_bars_of_tqdm(monkeypatch):
    with standard_error(is_terminal=True) as text, bars.bar(range(3), desc="a") as bar:
        assert type(bar) is std.tqdm and "\ra:   0%|" in text.getvalue()

    class OfNotebook(std.tqdm):
        pass

    monkeypatch.setattr(bars, "tqdm", OfNotebook)
    with standard_error(), bars.bar(range(3)) as bar:
        assert type(bar) is OfNotebook and bar.mininterval == 0.1


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, ["count: 0/3 [", "count: 3/3 ["]),
        ({"TQDM_DISABLE": "1"}, []),
        ({"TQDM_MININTERVAL": "0"}, [f"count: {n}/3 [" for n in (0, 1, 2, 3, 3)]),
        ({"TQDM_BAR_FORMAT": "{n} of {total}"}, ["0 of 3", "3 of 3"]),
    ],
)
def test_the_environment_of_tqdm_is_respected(variables, wanted):
    """tqdm reads it when it is imported."""
    root = str(Path(bars.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root, **variables},
    )  # fmt: skip
    said = done.stderr.splitlines()
    assert len(said) == len(wanted), said
    assert all(line.startswith(start) for line, start in zip(said, wanted, strict=True)), said
