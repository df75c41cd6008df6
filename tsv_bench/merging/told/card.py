"""The model card of a merged folder: README.md, as the Hugging Face hub reads it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tsv_bench.state_dicts.adapters.adapted import base_and_adapter
from tsv_bench.state_dicts.writer import MADE_BY

FILE = "README.md"
# Of the pretrained model's card what is true of the merged model, too.
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")
MARK = re.compile(r"<!-- tsv-bench ([0-9a-f]{64}) -->\n\Z")
SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says beside the metadata of the output.

    ``recipe``: the settings, as a recipe file has them. ``command``: as it was typed.
    """

    label: str
    sources: Mapping[str, Path | str]  # "pretrained", if there is one, and each task -> its path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None

    def text(self, metadata: Mapping[str, str], name: str) -> str:
        """Return the card of the output called ``name`` with these metadata."""
        about = json.loads(metadata[MADE_BY])
        task = f" for {about['task']}" if "task" in about else ""
        front = self._front_matter(about["method"])
        lines = [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
            f"# {name}",
            f"{self.label} of {', '.join(t for t in self.sources if t != 'pretrained')}{task}, "
            f"merged by tsv-bench {about['version']} from checkpoints whose sha256 are",
            _table(self.sources, about["inputs"]),
        ]
        if self.recipe:
            recipe = yaml.safe_dump(dict(self.recipe), sort_keys=False, allow_unicode=True)
            lines.append(f"As a recipe (`tsv-merge recipe=FILE`):\n\n```yaml\n{recipe}```")
        if self.command:
            lines.append(f"The command:\n\n```sh\n{self.command}\n```")
        whole = "\n\n".join(lines) + "\n\n"
        return f"{whole}<!-- tsv-bench {_digest(whole)} -->\n"

    def _front_matter(self, method: str) -> dict[str, Any]:
        ids = list(dict.fromkeys(filter(None, map(hub_id, self.sources.values()))))
        pretrained = str(next(iter(self.sources.values())))  # or what stands in for it
        base, _ = base_and_adapter(pretrained) or (pretrained, None)
        known, library = inherited(Path(base)), Path(base, "config.json").is_file()
        return {
            **({"base_model": ids, "base_model_relation": "merge"} if ids else {}),
            **known,
            **({"library_name": "transformers"} if library else {}),
            "tags": ["merge", "tsv-bench", method],
        }


def hub_id(path: Path | str) -> str | None:
    """Return owner/name of a folder in the hub's cache, or that the folder's config names."""
    if found := SNAPSHOT.search(f"{Path(path).absolute().as_posix()}/"):
        return f"{found[1]}/{found[2]}"
    try:
        named = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))["_name_or_path"]
        return named if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", named) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def inherited(folder: Path) -> dict[str, Any]:
    """Return what a folder's own card says of license, language and kind of task."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    return {k: front[k] for k in INHERITED if k in front} if isinstance(front, dict) else {}


def is_own(card: Path, pretrained: Path) -> bool:
    """Return whether nobody has edited a card: a merge wrote it, or copied the pretrained one's."""
    content = card.read_bytes()
    source = pretrained / FILE
    if source.is_file() and source.read_bytes() == content:
        return True  # versions before this one copied it
    text = content.decode("utf-8", "replace")
    found = MARK.search(text)
    return bool(found) and found[1] == _digest(text[: found.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _table(sources: Mapping[str, Path | str], hashes: Mapping[str, Mapping[str, str]]) -> str:
    rows = ["| | checkpoint | file | sha256 |", "|-|-|-|-|"]
    for task, path in sources.items():
        shown = hub_id(path) or Path(path).name
        for file, sha256 in hashes.get(task, {}).items():
            rows.append(f"| {_cell(task)} | {_cell(shown)} | {_cell(file)} | `{sha256}` |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
