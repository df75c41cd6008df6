"""What a yaml of conf/ says in its comments: its first sentence, examples, and a word on each key.

# tsv-x: what it does.             the summary, up to a full stop at the end of a line or sentence
#   tsv-x key=value                an example
key: 1     # what it means, and
           # goes on in lines that stand further right than the key
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
SKIPPED = ("defaults", "hydra", "only_if")  # no settings of a user
MOST_KEYS = 10  # of a mapping without comments that are shown one by one
EXAMPLE = re.compile(r"#   ((?:\w+=\S+ )?tsv-\w+.*)")


@dataclass(frozen=True)
class Setting:
    """A key of a yaml, as it is typed."""

    key: str  # "paths.runs"
    value: str  # as it stands in the yaml
    comment: str


def summary(path: Path) -> str:
    """Return the first sentence of a yaml's head comment."""
    lines = []
    for line in _head(path):
        if EXAMPLE.match(line):
            break
        lines.append(line.lstrip("# "))
        if line.endswith("."):
            break
    return re.split(r"(?<=[a-z)\d]\.) (?=[A-Z]|tsv-)", " ".join(lines))[0]


def examples(path: Path) -> list[str]:
    """Return the commands in a yaml's head comment."""
    return [found[1] for line in _head(path) if (found := EXAMPLE.match(line))]


def _head(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        if not line.startswith("# @package"):
            yield line


def settings(path: Path) -> list[Setting]:
    """Return the settings of a yaml; those inside a mapping stand for themselves."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader)
    if not isinstance(root, yaml.MappingNode):
        return []
    return list(_settings(root, text.splitlines(), ""))


def groups(path: Path) -> list[Setting]:
    """Return the groups that a command takes, with their defaults."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader)
    [entries] = [value.value for key, value in root.value if key.value == "defaults"]
    found = []
    for entry in entries:
        if isinstance(entry, yaml.MappingNode):
            [(key, value)] = entry.value
            if " " not in key.value:  # no "override hydra/..."
                listed = isinstance(value, yaml.SequenceNode)
                chosen = "[...]" if listed else _written(value, text.splitlines())
                comment = _comment(value, text.splitlines(), key.start_mark.column)
                found.append(Setting(key.value, chosen, comment))
    return found


def _settings(node: yaml.MappingNode, lines: Sequence[str], prefix: str) -> Iterator[Setting]:
    for key, value in node.value:
        if not prefix and key.value in SKIPPED or key.value.startswith("_"):
            continue
        name = prefix + key.value
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            inside = list(_settings(value, lines, f"{name}."))
            if len(inside) > MOST_KEYS and not any(setting.comment for setting in inside):
                yield Setting(name, "{...}", f"{len(inside)} keys")
            else:
                yield from inside
        else:
            comment = _comment(value, lines, key.start_mark.column)
            yield Setting(name, _written(value, lines), comment)


def _written(value: yaml.Node, lines: Sequence[str]) -> str:
    """Return a value as it stands in the yaml, in one line."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip()
    parts = [lines[start.line][start.column :], *lines[start.line + 1 : end.line]]
    if end.line < len(lines):
        parts.append(lines[end.line][: end.column])
    return " ".join(part.strip() for part in parts if part.strip())


def _comment(value: yaml.Node, lines: Sequence[str], column: int) -> str:
    """Return the comment behind a value, and its lines below, which stand right of ``column``."""
    if value.end_mark.line >= len(lines):
        return ""
    rest = lines[value.end_mark.line][value.end_mark.column :].strip()
    if not rest.startswith("#"):
        return ""
    said = [rest.lstrip("# ")]
    for line in lines[value.end_mark.line + 1 :]:
        text = line.lstrip()
        if not text.startswith("#") or len(line) - len(text) <= column:
            break
        said.append(text.lstrip("# "))
    return " ".join(said)
