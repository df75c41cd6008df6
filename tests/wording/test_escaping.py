"""Names stay in their folder, texts in their line, their cell and their format."""

import csv
import io

import pytest

from tsv_bench.report.text.csv_records import to_csv
from tsv_bench.wording.escaping import check_line, check_name, escape_csv, escape_markdown, visible

NAMES = ("mini", "vit_b32", "signs+shapes", "20-tasks-a1b2c3", "Étude (1)", "a..b", "x" * 100)
NO_NAMES = ("", ".", "..", "../x", "a/b", "/etc", "a\\b", ".hidden", "a\nb", "a\0", "\x1b[31m",
            "x" * 101, "é" * 51, "\ud800", "\u202egnp", 3, None, ["x"])  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_name_is_taken(name):
    check_name(name, "its name")


@pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
def test_a_name_that_leaves_its_folder_or_its_line_is_refused(name):
    with pytest.raises(ValueError, match="^its suite is .* no slash, no backslash") as caught:
        check_name(name, "its suite")
    assert visible(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("text", ["", "TSV-M (ours), 80%: ±1", "数字 दस ё", "👩‍🔬"])
def test_a_line_is_taken(text):
    check_line(text, "its label")
    assert visible(text) == text


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "\x9b2J", "a\u2028b", "\u202eb", "x" * 1001, 3]
)
def test_what_is_no_line_is_refused(text):
    with pytest.raises(ValueError, match="its label is .* without control characters"):
        check_line(text, "its label")


def test_control_characters_are_written_out():
    assert visible("a\x1b[31m\nb\ud800") == r"a\x1b[31m\nb\ud800"


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("<script>", "&lt;script>"),
        ("</b> <!-- &lt;", "&lt;/b> &lt;!-- &amp;lt;"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("[x](javascript:y)", r"[x\](javascript:y)"),
        ("![x][y]", r"![x\][y]"),
        ("*a* _b_ `c` ~~d~~", r"\*a\* \_b\_ \`c\` \~\~d\~\~"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, escaped):
    assert escape_markdown(text) == escaped


def test_what_our_own_texts_hold_stays():
    text = "TSV-M (rank_fraction=0.1): +2.9 [2.1, 3.7] over 3 seeds, p < 0.0001, A & B, <0.1"
    assert escape_markdown(text) == text


@pytest.mark.parametrize("text", ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_computes_no_cell(text):
    (record,) = csv.DictReader(io.StringIO(to_csv([{"label": text, "value": -0.5}])))
    assert record == {"label": f"'{text}", "value": "-0.5"}


def test_other_cells_of_csv_stay():
    assert [escape_csv(cell) for cell in ("a=b", -1.5, "", None)] == ["a=b", -1.5, "", None]
