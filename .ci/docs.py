"""Build the documentation site into site/ from README, docs/, results/ and what they link to.

Readers on the forge and readers of the site follow the same relative links. So the pages are
copied to .site/ at the places that they have here, with all files that they link to, and Zensical
builds from there; it fails on a link or an anchor that leads nowhere. Its tools are the extra
`docs`, in .venv-docs. Standard library only, since there may be no .venv.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES, VENV = ROOT / ".site", ROOT / ".venv-docs"  # mkdocs.yml names the first, too
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
    run(programs / "zensical", "build", "--clean", "--strict")
    print(f"Built {(ROOT / 'site' / 'index.html').relative_to(ROOT)}; it needs no server.")


def run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def stage(to: Path) -> None:
    """Copy README, all of docs/, and every file that a page links to, to their places in ``to``."""
    docs = ROOT / "docs"
    left = [ROOT / "README.md", docs / "site.css", *docs.rglob("*.md")]
    done = set()
    while left:
        path = left.pop()
        if path in done:
            continue
        done.add(path)
        target = to / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if path.suffix == ".md":
            left += linked(path)


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
