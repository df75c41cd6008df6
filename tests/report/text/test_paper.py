"""Published figures beside ours, the paper's layout, and LaTeX."""

import csv
import io
import re
from dataclasses import replace

import pytest
from made_up.runs import LABELS, make_run, make_vision_run

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import save_run
from tsv_bench.cli import report
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.layouts import LAYOUTS
from tsv_bench.report.text.render import (
    render_csv,
    render_latex,
    render_markdown,
    render_terminal,
)
from tsv_bench.report.text.sheet import Sheet, latex
from tsv_bench.report.write_report import write_report

pytestmark = pytest.mark.usefixtures("few_resamples")


def vision_tables(*cells, **changes):
    """Build tables of Runs, each given as (method, suite, backbone, generation)."""
    return build_tables([make_vision_run(*cell, **changes) for cell in cells])


SAME = [(method, "vision8", "vit_b32", "original") for method in ("tsv_merge", "individual")]
EMBEDDED = build_tables([make_run("ties"), make_run("individual")])
OTHER = [(method, "vision8", "vit_b32", "finetune") for method in ("tsv_merge", "individual")]


def line_of(text, start):
    [line] = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_published_columns_stand_beside_ours():
    (table,) = tables = vision_tables(*SAME)
    row = table.rows[0]
    text = render_markdown(tables)
    assert "| method | absolute | published | difference | normalized | published |" in text
    cells = [cell.strip() for cell in line_of(text, "| TSV-M ").split("|")[1:-1]]
    ours, difference = row.absolute.value, 100 * (row.absolute.value - 0.8586)
    assert cells[1].startswith(f"{100 * ours:.1f} ±")
    assert cells[2:4] == ["85.86 (original)", f"{difference:+.1f}"]
    assert cells[5] == "92.31 (original)" and re.fullmatch(r"[+-]\d+\.\d", cells[6])
    shown = [line for line in render_terminal(tables).splitlines() if line.startswith("TSV-M  ")]
    assert re.fullmatch(
        rf"TSV-M +85\.86 +\{difference:+.1f} +92\.31 +[+-]\d\.\d +original", shown[1]
    )


def test_published_figures_of_other_checkpoints_stand_in_brackets():
    tables = vision_tables(*OTHER)
    cells = line_of(render_markdown(tables), "| TSV-M ").split(" | ")
    assert cells[2:4] == ["[85.86 (original)]", "-"]
    assert cells[5:7] == ["[92.31 (original)]", "-"]
    shown = render_terminal(tables)
    assert re.search(r"^TSV-M +\[85\.86\] +- +\[92\.31\] +- +original$", shown, re.MULTILINE)
    for text in (render_markdown(tables), shown):
        assert "original checkpoints beside ours of finetune" in " ".join(text.split())
    [record, _] = csv.DictReader(io.StringIO(render_csv(tables)))
    assert (record["generation"], record["published_generation"]) == ("finetune", "original")
    assert record["difference_absolute"] == record["difference_normalized"] == ""


def test_missing_figures_are_dashes():
    run, correct = make_vision_run("tsv_merge", generation="original")
    tables = build_tables([(replace(run, method="new", label="New"), correct)])
    cells = line_of(render_markdown(tables), "| New ").split(" | ")
    assert cells[2:4] == cells[5:7] == ["-", "-"]
    assert re.search(r"^New +- +- +- +- +-$", render_terminal(tables), re.MULTILINE)
    # An absolute figure without a normalized one.
    cells = line_of(
        render_markdown(vision_tables(("tsv_merge", "vision8", "vit_b32", "fixed"))), "| TSV-M "
    ).split(" | ")
    assert cells[2] == "83.22 (fixed)" and re.match(r"[+-]", cells[3]) and cells[5:7] == ["-", "-"]


def test_csv_has_published_figures_as_fractions():
    tables = vision_tables(*SAME)
    [record, individual] = csv.DictReader(io.StringIO(render_csv(tables)))
    assert float(record["published_absolute"]) == 0.8586
    assert float(record["difference_absolute"]) == tables[0].rows[0].absolute.value - 0.8586
    assert float(record["published_accuracy_cars"]) == 0.7046
    assert float(individual["published_accuracy_dtd"]) == 0.9797872340425532
    assert "2412.00081" in record["published_source"]


def test_tables_of_embedded_suites_have_no_published_columns():
    for text in (*map(str, render_csv(EMBEDDED).splitlines()[:1]), render_markdown(EMBEDDED)):
        assert "published" not in text and "generation" not in text


@pytest.mark.parametrize("suite", published.suites())
def test_vision_tables_fit_the_terminal(suite):
    methods = [m for m in LABELS if m != "ties"]
    cells = [(method, suite, "vit_l14", "fixed") for method in methods]
    longest = make_vision_run("ties", suite, "vit_l14")
    longest = (replace(longest[0], label="Interference reduction only"), longest[1])
    tables = build_tables([longest, *(make_vision_run(*cell) for cell in cells)])
    for layout in LAYOUTS:
        text = render_terminal(tables, layout=layout)
        assert max(map(len, text.splitlines())) <= 100
        assert "Interference reduction only" in text


def test_paper_layout_has_methods_down_and_suites_across():
    tables = vision_tables(*SAME, ("tsv_merge", "vision20", "vit_b32", "other"),
                           ("ties", "vision14", "vit_l14", "original"))  # fmt: skip
    ours = {(t.backbone, t.suite): t.rows[0].absolute.value for t in tables}
    text = render_markdown(tables, "paper")
    header = [cell.strip() for cell in line_of(text, "| method ").split("|")[1:-1]]
    assert header == ["method", *(f"{b} {n} tasks" for b in ("ViT-B/32", "ViT-L/14")
                                  for n in (8, 14, 20))]  # fmt: skip
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()
             if line.startswith("|")][2:]  # fmt: skip
    assert [line[0] for line in lines] == [
        name for method in ("TIES", "TSV-M", "Individual")
        for name in (method, "published (original)", "difference (original)")
    ]  # fmt: skip
    merged, figures, differences = lines[3:6]
    assert merged[1].startswith(f"{100 * ours['vit_b32', 'vision8']:.2f} (")
    assert figures[1:4] == ["85.86 (92.31)", "-", "[77.07 (84.29)]"]
    assert differences[1].startswith(f"{100 * (ours['vit_b32', 'vision8'] - 0.8586):+.2f} (")
    assert merged[2] == "-" and differences[2:] == ["-"] * 5
    assert lines[1][5] == "79.5 (84.1)"


def test_paper_layout_says_of_which_tables_its_notes_are():
    tables = vision_tables(*SAME, ("tsv_merge", "vision20", "vit_b32", "other"))
    text = render_markdown(tables, "paper")
    assert "- vit_b32-vision20: TSV-M: no image interval" in text
    assert text.count("arXiv:2412.00081v3") == 1, "one source, one note"
    assert "beside ours of other (TSV-M)." in text


def test_paper_layout_of_normalized_figures_only():
    run, correct = make_vision_run("tsv_merge")
    run = replace(run, method="tsv_low_rank", label="Low rank only")
    lines = render_markdown(build_tables([(run, correct)]), "paper").splitlines()
    [figures, differences] = [line for line in lines if re.match(r"\| (pub|diff)", line)]
    assert "| - (75.2) |" in figures
    assert re.search(r"\| - \([+-]\d+\.\d\d\) \|", differences)


def test_paper_layout_names_the_knobs_that_differ_between_columns():
    runs = [make_vision_run(), make_vision_run(suite="vision14", knobs={"rank_fraction": 0.5})]
    text = render_markdown(build_tables(runs), "paper")
    assert "| TSV-M (rank_fraction=null, polar=svd) |" in text
    assert re.search(r"\| TSV-M \(rank_fraction=0\.5, polar=null\) \| - \| \d", text)


def test_paper_layout_keeps_embedded_suites_apart():
    tables = build_tables([make_vision_run(), make_run("ties"), make_run("tsv_merge")])
    text = render_markdown(tables, "paper")
    first, second = text.split("## ")[1:]
    assert first.startswith("ViT-B/32 on vision8, vision14, vision20\n")
    assert second.startswith("mini on mini8\n") and "published" not in second
    assert "| method | mini mini8 |" in second


def test_paper_csv_tells_figures_that_are_not_comparable():
    tables = vision_tables(*SAME, ("tsv_merge", "vision20", "vit_b32", "other"))
    records = list(csv.DictReader(io.StringIO(render_csv(tables, "paper"))))
    merged = {r["figures"]: r for r in records if r["method"] == "tsv_merge"}
    assert list(merged) == ["ours", "published", "published, not comparable", "difference"]
    name = "absolute_vit_b32_vision20"
    assert [merged[figures][name] for figures in merged] == [
        str(tables[0].rows[0].absolute.value), "", "0.7707", ""
    ]  # fmt: skip
    assert float(merged["published"]["normalized_vit_b32_vision8"]) == 0.9231


def check_latex(text):
    """Check that braces and environments are closed, and lines of tables have all columns."""
    bare = re.sub(r"\\[{}%]", "", text)
    assert bare.count("{") == bare.count("}")
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    tabulars = re.findall(r"\\begin\{tabular\}\{(lr*)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    for columns, body in tabulars:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 2
        for row in rows:
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spanned == len(columns)
            assert not row.startswith(("[", "*"))
    return tabulars


@pytest.mark.parametrize("layout", LAYOUTS)
def test_latex_is_whole_and_escaped(layout):
    knobs = {"rank_fraction": 0.1, "polar": "50%_&#"}
    runs = [make_vision_run(*cell) for cell in (*SAME, ("ties", "vision20", "vit_b16", "other"))]
    runs += [make_vision_run(knobs=knobs, fingerprint="b"), make_run("ties")]
    text = render_latex(build_tables(runs), layout)
    assert len(check_latex(text)) == {"runs": 3, "paper": 2, "leaderboard": 3}[layout]
    assert r"rank\_fraction=0.1, polar=50\%\_\&\#" in text
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\usepackage{booktabs,graphicx}"):
        assert command in text
    # Every special character is escaped.
    words = re.sub(r"\\[#%&_$]|\$\\pm\$|\$-\$", "", text.split("\n", 1)[1])
    words = words.replace("!}{%", "")
    assert not re.search(r"[#%_^~±]", words)
    assert "$" not in words


def test_latex_cells():
    sheet = Sheet(title="T", caption="", header=["a", "b"], rows=[["[x", "-0.2 (-1.0)"],
                  ["  sub", "-"], [r"\~^", "0.93-1.00"]])  # fmt: skip
    text = latex(sheet)
    assert r"{[}x & $-$0.2 ($-$1.0) \\" in text
    assert r"\quad sub & -- \\" in text
    assert r"\textbackslash{}\textasciitilde{}\textasciicircum{} & 0.93-1.00 \\" in text


def test_unknown_layouts_are_refused():
    with pytest.raises(ValueError, match="layout='papr' is unknown; there are: runs, paper"):
        render_terminal(EMBEDDED, layout="papr")


@pytest.mark.usefixtures("blank_figures")
def test_report_of_the_papers_layout_has_its_own_names(tmp_path):
    paths = write_report(vision_tables(*SAME), tmp_path, "paper")
    assert [p.name for p in paths if p.stem == "paper"] == ["paper.md", "paper.csv", "paper.tex"]
    write_report(vision_tables(*SAME), tmp_path)
    assert (tmp_path / "table.md").read_text() != (tmp_path / "paper.md").read_text()


@pytest.mark.usefixtures("blank_figures")
def test_command_renders_the_layout_that_is_asked_for(tmp_path, monkeypatch, capsys):
    save_run(*make_vision_run(), tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tsv-report", "layout=paper"])
    report.main()
    shown = capsys.readouterr().out
    assert "published (original)" in shown and "wrote runs/report/paper.tex" in shown
    written = {end: (tmp_path / "runs" / "report" / f"paper.{end}").read_text()
               for end in ("md", "csv", "tex")}  # fmt: skip
    run, _ = make_vision_run()
    differences = run.absolute - 0.8586, run.normalized - 0.9231
    text = f"{100 * differences[0]:+.2f} ({100 * differences[1]:+.2f})"
    for end, ours in (("md", text), ("tex", text.replace("-", "$-$"))):
        assert "85.86 (92.31)" in written[end] and ours in written[end]
    check_latex(written["tex"])
    records = {r["figures"]: r for r in csv.DictReader(io.StringIO(written["csv"]))}
    assert records["published"]["absolute_vit_b32_vision8"] == "0.8586"
    found = [float(records["difference"][f"{name}_vit_b32_vision8"])
             for name in ("absolute", "normalized")]  # fmt: skip
    assert found == pytest.approx(differences)
