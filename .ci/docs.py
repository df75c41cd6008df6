"""Build the documentation site into site/ from README, docs/, notebooks/, results/ and their links.

Readers on the forge and readers of the site follow the same relative links. So the pages are
copied to .site/ at the places that they have here, with all files that they link to. Notebooks are
run, each in a kernel of .venv, and nbconvert makes pages with their figures (mkdocs-jupyter would,
but Zensical passes it over). Zensical builds from there; it fails on a link or an anchor that
leads nowhere. The tools are the extra `docs`, in .venv-docs. Standard library only, since there
may be no .venv; without one, notebooks are shown without figures.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PAGES, VENV = ROOT / ".site", ROOT / ".venv-docs"  # mkdocs.yml names the first, too
JUPYTER = ROOT / ".venv" / "bin" / "jupyter-execute"
LINK = re.compile(r"\]\(<?([^)\s>#]+)[^)]*\)")
CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", re.M | re.S)


def main() -> None:
    programs = VENV / "bin"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = project["optional-dependencies"]["docs"]
    if not (programs / "pip").exists():
        run(sys.executable, "-m", "venv", VENV)
    pip = [programs / "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    run(*pip, "--constraint", "constraints.txt", *tools)
    shutil.rmtree(PAGES, ignore_errors=True)
    stage(PAGES)
    with TemporaryDirectory() as folder:
        shown = executed(Path(folder))
        convert = [programs / "jupyter-nbconvert", "--to=markdown", "--log-level=WARN"]
        convert += ["--CoalesceStreamsPreprocessor.enabled=True"]  # else lines are torn apart
        run(*convert, f"--output-dir={PAGES / 'notebooks'}", *shown)
    run(programs / "zensical", "build", "--clean", "--strict")
    print(f"Built {(ROOT / 'site' / 'index.html').relative_to(ROOT)}; it needs no server.")


def run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def executed(folder: Path) -> list[Path]:
    """Run all notebooks at once, and return copies of them in ``folder`` with what they showed."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not JUPYTER.exists():
        print("No .venv (make install): the notebooks are shown without their figures.")
        return notebooks
    # Their own places for files and for IPython's settings; one thread, as they share the cores.
    home = {"TSV_BENCH_FOLDER": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **home}
    environment.pop("TSV_BENCH_RUNS", None)
    started = []
    for path in notebooks:
        command = [JUPYTER, f"--output={folder / '{notebook_name}'}", path]
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, **output))
    said = [process.communicate()[1] for process in started]  # until all have ended
    for process, text in zip(started, said, strict=True):
        if process.returncode:
            print(text, file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, process.args)
    done = [folder / path.name for path in notebooks]
    for path in done:
        if text := warned(path):
            sys.exit(f"docs: {path.name} shows warnings or progress bars: {text}")
    return done


def warned(notebook: Path) -> str:
    """Return what a notebook that was run shows of its standard error."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")


def stage(to: Path) -> None:
    """Copy README, all of docs/, and every file that a page links to, to their places in ``to``.

    A link to a notebook becomes one to the page that is made of it.
    """
    docs = ROOT / "docs"
    left = [ROOT / "README.md", docs / "site.css", *docs.rglob("*.md")]
    done = set()
    while left:
        path = left.pop()
        if path in done or path.suffix == ".ipynb":
            continue
        done.add(path)
        target = to / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            target.write_text(text.replace(".ipynb)", ".md)"), encoding="utf-8")
            left += linked(path)
        else:
            shutil.copyfile(path, target)


def linked(page: Path) -> list[Path]:
    """Return the files of this checkout that a page links to or shows."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    paths = [(page.parent / link).resolve() for link in LINK.findall(text) if ":" not in link]
    return [path for path in paths if path.is_file() and path.is_relative_to(ROOT)]


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"docs: failed: {' '.join(map(str, error.cmd))}")
