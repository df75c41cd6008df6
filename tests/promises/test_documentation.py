"""Links of the documentation lead somewhere, its site has all pages, and no made page is stale."""

import importlib.util
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import reference_pages
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmarks", "conf", "docs", "examples", "results", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))  # .ci/docs.py makes a page of each
CODE = re.compile(r"^```.*?^```|^    .*?$|`[^`\n]*`", re.M | re.S)
LINK = re.compile(r"\]\(<?([^)\s>]+)")
RENEWED = "it is made from what has changed: run .venv/bin/python docs/reference_pages.py"


def prose(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return CODE.sub("", text)


@cache
def anchors(path):
    """The anchors of a page's headings, as the forge and the site make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-"))
    return found


def test_links_lead_to_files_and_headings():
    wrong = []
    for page in [*PAGES, *NOTEBOOKS]:
        for link in LINK.findall(prose(page)):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if (
                re.match(r"\w+:", link)
                or target.is_file()
                and (not anchor or anchor in anchors(target))
            ):
                continue
            wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert not wrong


def test_the_site_lists_every_page_that_is_written_by_hand():
    def pages(node):
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, str):
                yield value
            else:
                yield from pages(value)

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    made = [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]
    assert [name for name in listed if not (ROOT / name).is_file()] == made
    by_hand = {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")}
    by_hand = {name for name in by_hand if not name.startswith("docs/reference/methods/")}
    assert not by_hand - set(listed), "name them in the nav of mkdocs.yml"


def test_made_pages_are_those_of_the_yamls_docstrings_and_results(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    made = reference_pages.pages()
    folder = reference_pages.FOLDER
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
    assert there == set(made), RENEWED
    for name, text in made.items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"{name}: {RENEWED}"


@pytest.fixture(scope="module")
def maker():
    """.ci/docs.py"""
    spec = importlib.util.spec_from_file_location("docs", ROOT / ".ci" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_is_made_of_readme_docs_and_what_they_link_to(maker, tmp_path):
    maker.stage(tmp_path)
    assert (tmp_path / "docs/reference/methods/tsv_merge.md").is_file()
    assert (tmp_path / "results/leaderboard/README.md").is_file()  # a page that a page links to
    assert (tmp_path / "tsv_bench/methods/__init__.py").is_file()  # as it is
    assert not (tmp_path / "pyproject.toml").exists()
    # A notebook has its page in its place, and links lead there.
    assert "](../notebooks/01_quickstart.md)" in (tmp_path / "docs/start.md").read_text()
    assert not list(tmp_path.rglob("*.ipynb"))


def test_every_notebook_is_run_where_there_is_what_runs_it(maker, monkeypatch, tmp_path, capsys):
    """And a site without figures is made where there is not. Here nothing is run but a stand-in."""
    monkeypatch.setattr(maker, "JUPYTER", tmp_path / "jupyter-execute")
    assert maker.executed(tmp_path) == NOTEBOOKS
    assert "make install" in capsys.readouterr().out
    maker.JUPYTER.write_text('#!/bin/sh\nexec cp "$2" "$TSV_BENCH_FOLDER"\n')
    maker.JUPYTER.chmod(0o755)
    assert maker.executed(tmp_path) == [tmp_path / path.name for path in NOTEBOOKS]
    assert all(path.is_file() for path in maker.executed(tmp_path))
    cell = {"outputs": [{"name": "stderr", "text": ["UserWarning: ", "old"]}]}
    (tmp_path / "noisy.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert maker.warned(tmp_path / "noisy.ipynb") == "UserWarning: old"
    maker.JUPYTER.write_text("#!/bin/sh\necho NameError >&2\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError, match="01_quickstart.*status 3"):
        maker.executed(tmp_path)
    assert "NameError" in capsys.readouterr().err


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
