"""A log file beside what a command makes."""

import logging
import re

import pytest

from tsv_bench.cli.sweep.log_file import logged_to

LOG = logging.getLogger("tsv_bench.made_up")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


def test_lines_have_times_and_are_added(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tsv_bench")
    path = tmp_path / "it.log"
    for number in range(2):
        with logged_to(path, f"tsv-bench seed={number}"):
            LOG.info("said %s", number)
        LOG.info("not there")
    lines = path.read_text().splitlines()
    assert all(re.match(rf"{TIME} INFO \d+: ", line) for line in lines)
    said = [line.partition(": ")[2] for line in lines]
    assert said == ["tsv-bench seed=0", "said 0", "tsv-bench seed=1", "said 1"]


def test_how_it_failed_is_there_with_its_traceback_and_said_to_nobody_else(tmp_path, caplog):
    path = tmp_path / "it.log"
    with pytest.raises(KeyboardInterrupt), logged_to(path, "tsv-bench"):
        raise KeyboardInterrupt
    text = path.read_text()
    assert re.search(rf"\n{TIME} ERROR \d+: Traceback .*\nKeyboardInterrupt\n", text, re.S)
    assert not caplog.records


def test_half_a_letter_is_no_failure(tmp_path):
    with logged_to(tmp_path / "it.log", "half a letter: \ud800"):
        pass
    assert "half a letter: \\ud800" in (tmp_path / "it.log").read_text()
