"""What is printed loses nothing: no missing letter and no full disk is a traceback."""

import contextlib
import io
import os
import sys

import pytest

from tsv_bench.cli import report
from tsv_bench.cli.printing import WIDTH, columns, show


@contextlib.contextmanager
def printing_to(path, encoding="utf-8"):
    with open(path, "w", encoding=encoding) as file, contextlib.redirect_stdout(file):
        yield


def test_text_is_printed_as_it_is(capsys):
    show("85.9 ±0.4")
    assert capsys.readouterr().out == "85.9 ±0.4\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("method    absolute  seeds\nTIES      85.9 ±0.4   ±0.3", None),
        ("half a letter: \ud800", "half a letter: ?"),
        ("Größe · 2", "Gr??e * 2"),
        ("±1", "+-1"),
    ],
)
def test_what_the_output_lacks_is_written_in_ascii(text, expected, tmp_path):
    with printing_to(tmp_path / "out", "ascii"):
        show(text)
    shown = (tmp_path / "out").read_text()
    # Columns stay aligned.
    assert shown == (expected or "method    absolute  seeds\nTIES     85.9 +-0.4  +-0.3") + "\n"


def test_a_configuration_with_a_letter_that_the_output_lacks_is_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tsv-report", "paths.runs=Größe", "--cfg", "job"])
    with printing_to(tmp_path / "out", "ascii"):
        report.main()
    assert "runs: Gr??e" in (tmp_path / "out").read_text()


def test_a_table_fills_the_terminal_and_a_file_has_a_hundred_columns(monkeypatch):
    reader, writer = os.openpty()
    with os.fdopen(reader), open(writer, "w") as terminal:
        monkeypatch.setenv("COLUMNS", "132")
        with contextlib.redirect_stdout(terminal):
            assert columns() == 132
    with contextlib.redirect_stdout(io.StringIO()):
        assert columns() == WIDTH
    monkeypatch.setattr(sys, "stdout", None)
    assert columns() == WIDTH


def test_a_stream_without_an_encoding_takes_all(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    show("±")
    assert out.getvalue() == "±\n"


def test_no_standard_output_is_no_mistake(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    show("±")


def test_a_full_disk_is_a_message_and_nothing_is_tried_again():
    with printing_to("/dev/full"):
        with pytest.raises(OSError, match="cannot print the result .*No space left on device"):
            show("a table")
        show("what follows is lost, without another message")


def test_a_reader_that_has_left_is_told_nothing_more():
    reader, writer = os.pipe()
    os.close(reader)
    with printing_to(writer):
        show("a table")
        show("another")
