"""Write docs/reference/ anew from the yamls of conf/, docstrings, --help and results/leaderboard.

    .venv/bin/python docs/reference_pages.py

tests/promises/test_reference_pages.py compares what is committed with what this would write.
"""

import csv
import inspect
import os
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from tsv_bench import methods
from tsv_bench.cli.config.search_path import CONF, groups, options
from tsv_bench.cli.help.choices import DESCRIBED
from tsv_bench.cli.help.comments import EXAMPLE, Setting, settings, summary
from tsv_bench.cli.help.page import help_page, of_choice, options_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
LEADERBOARD = ROOT / "results" / "leaderboard" / "leaderboard.csv"
MADE = "<!-- Made by docs/reference_pages.py; edit what it reads, not this. -->\n"
LONGEST = 100  # characters of a default
ENDS = ("", "_images_low", "_images_high")  # of a column's name: the mean, and its interval
FEW = 6  # values of a list that a table shows one by one


def pages() -> dict[str, str]:
    """Return file name in docs/reference/ -> content."""
    found = {"commands.md": commands(), "configuration.md": configuration(), "tasks.md": tasks()}
    found |= {"methods/README.md": methods_list()}
    rows = leaderboard()
    for name in options("method"):
        found[f"methods/{name}.md"] = method(name, rows.get(name, []))
    return {name: f"{MADE}\n{text.strip()}\n" for name, text in found.items()}


def method(name: str, rows: list[Mapping[str, str]]) -> str:
    """Return a method's page: paper, knobs, what it sees, our row, and what its function says."""
    path = CONF / "method" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    label, paper, seen = DESCRIBED["method"][0](content, path)
    function = getattr(methods, content["serve"]["_target_"].rpartition(".")[2])
    knobs = of_choice("method", name, (), "bench")
    lines = [f"# {label}", "", f"`method={name}`. What it sees: {seen}.", "", *prose(path)]
    if paper:
        lines += ["", "## Paper", "", linked(paper)]
    lines += ["", "## Settings", "", *table(knobs), "", "## The function", ""]
    source = Path(inspect.getsourcefile(inspect.unwrap(function))).relative_to(ROOT)
    lines += [f"[`{source}`](../../../{source})", "", escaped(inspect.getdoc(function) or "")]
    lines += ["", "## Here", "", *standing(rows)]
    return "\n".join(lines)


def standing(rows: list[Mapping[str, str]]) -> Iterator[str]:
    """Yield a method's rows of the leaderboard."""
    if not rows:
        yield "It has no row in the [leaderboard](../../../results/leaderboard/README.md)."
        return
    yield "Percent on eight embedded tasks, mean of three fine-tuning seeds, with the 95% interval"
    yield "over test images ([leaderboard](../../../results/leaderboard/README.md)). The backbone"
    yield "is tiny."
    yield ""
    yield "| method | which gives | absolute | normalized | alpha |"
    yield "|-|-|-:|-:|-:|"
    for row in rows:
        low, high = (f"{float(row[f'alpha_{end}']):.2f}" for end in ("low", "high"))
        alpha = low if low == high else f"{low} to {high}"
        means = f"{interval(row, 'absolute')} | {interval(row, 'normalized')}"
        yield f"| {row['label']} | {row['block']} | {means} | {alpha} |"


def interval(row: Mapping[str, str], name: str) -> str:
    mean, low, high = (100 * float(row[f"{name}{end}"]) for end in ENDS)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def leaderboard() -> dict[str, list[Mapping[str, str]]]:
    """Return method -> its rows."""
    found: dict[str, list[Mapping[str, str]]] = {}
    with LEADERBOARD.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["method"], []).append(row)
    return found


def methods_list() -> str:
    """Return the table of all methods."""
    lines = ["# Every method", "", "| method | `method=` | paper | it sees |", "|-|-|-|-|"]
    for name in options("method"):
        path = CONF / "method" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        label, paper, seen = DESCRIBED["method"][0](content, path)
        lines.append(f"| [{label}]({name}.md) | {name} | {linked(paper)} | {seen} |")
    about = "Where a method differs from its paper or its authors' code, its page says so."
    return "\n".join([*lines, "", about])


def tasks() -> str:
    """Return the page of all tasks."""
    lines = ["# Every task", "", "Images are train / val / test.", ""]
    lines += ["| task | `task=` | classes | images | from |", "|-|-|-:|-|-|"]
    said = []
    for name in options("task"):
        path = CONF / "task" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        label, classes, images, where = DESCRIBED["task"][0](content, path)
        lines.append(f"| [{label}](#{name}) | {name} | {classes} | {images} | {where} |")
        task = next(value for value in content.values() if isinstance(value, dict))
        prompts = task.get("templates") or []
        said += ["", f"## {name}", "", *prose(path)]
        if prompts:
            said += ["", f"Prompts: {len(prompts)}, as in `{prompts[0]}`."]
    return "\n".join(lines + said)


def commands() -> str:
    """Return the page of all commands: what --help prints."""
    os.environ.pop("XDG_CACHE_HOME", None)  # --help says where the cache is on this machine
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = ["# Commands", "", "What `--help` prints. `--help KEY` says all that is said of a key."]
    for program in project["scripts"]:
        name = program.removeprefix("tsv-")
        if (CONF / f"{name}.yaml").exists():
            lines += ["", f"## {program}", "", "```text", help_page(name).strip(), "```"]
    return "\n".join(lines)


def configuration() -> str:
    """Return the page of all settings of commands, and of choices but methods and tasks."""
    lines = [
        "# Configuration",
        "",
        "Every setting with its default, as in `conf/`, whose comments these are. Methods have",
        "[pages of their own](methods/README.md), and so have [tasks](tasks.md). How yamls fit",
        "together is in [conf/README.md](../../conf/README.md).",
    ]
    for path in sorted(CONF.glob("*.yaml")):
        name = f"tsv-{path.stem}" if path.stem != "launch" else "all commands"
        own = settings(path) if path.stem == "launch" else options_of(path)
        shared = {s.key for s in settings(CONF / "launch.yaml")} if path.stem != "launch" else set()
        kept = [s for s in own if s.key not in shared and s.key != "hydra"]
        lines += ["", f"## {name}", "", *table(kept)]
    for group in groups():
        if group in ("method", "task"):
            continue
        lines += ["", f"## {group}"]
        for name in options(group):
            path = CONF / group / f"{name}.yaml"
            found = options_of(path, f"{group}.")
            lines += ["", f"### {group}={name}", "", escaped(summary(path) or "No settings.")]
            lines += ["", *table(found)] if found else []
    return "\n".join(lines)


def prose(path: Path) -> Iterator[str]:
    """Yield the head comment of a yaml as Markdown: its commands as code, the rest as text."""
    in_code = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        if line.startswith("# @package"):
            continue
        if in_code != bool(found := EXAMPLE.match(line)):
            in_code = not in_code
            yield ""
        yield f"    {found[1]}" if found else escaped(line.removeprefix("#").strip())


def table(found: list[Setting]) -> list[str]:
    """Return settings as a table."""
    if not found:
        return ["None."]
    rows = [f"| `{s.key}` | {default(s.value)} | {cell(s.comment)} |" for s in found]
    return ["| key | default | meaning |", "|-|-|-|", *rows]


def default(value: str) -> str:
    try:
        listed = yaml.safe_load(value)
    except yaml.YAMLError:  # has an interpolation
        listed = None
    if isinstance(listed, list) and len(listed) > FEW:
        return f"{len(listed)} values, {listed[0]:.3g} to {listed[-1]:.3g}"
    value = textwrap.shorten(value.removeprefix(">-"), LONGEST, placeholder=" ...")
    return f"`{value}`".replace("|", "\\|") if value else ""


def cell(text: str) -> str:
    return escaped(text).replace("|", "\\|")


def escaped(text: str) -> str:
    """Return text in which Markdown finds nothing to format, but for code in backticks."""
    text = text.replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def linked(paper: str) -> str:
    """Return a paper with a link to arXiv."""
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def main() -> None:
    (FOLDER / "methods").mkdir(parents=True, exist_ok=True)
    made = pages()
    for path in FOLDER.rglob("*.md"):
        if path.relative_to(FOLDER).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
