"""Recipes of tsv-merge: a yaml file that holds what would stand on the command line.

method: {name: ties, density: 0.1}
pretrained: base/
finetuned: {cars: cars/, dtd: dtd/}
weights: {cars: 0.3, dtd: 0.7}
output: merged/

Keys are those of conf/merge.yaml, paths are taken from the current folder, and what stands on the
command line counts more.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tsv_bench.cli.config.search_path import OnceEach, not_utf8
from tsv_bench.cli.typed.quoting import SPECIAL, quote

NESTED = ("method", "cache")  # whose keys are settings of their own
MERGEKIT = ("merge_method", "models", "base_model", "slices")


def with_recipe(arguments: list[str]) -> list[str]:
    """Return the arguments with those of the recipe that ``recipe=`` names before them.

    Raises ValueError or OSError that names the file if it cannot be read or is no recipe.
    """
    recipes = [a.lstrip("+") for a in arguments if a.lstrip("+").startswith("recipe=")]
    named = [recipe.partition("=")[2].strip("'\"") for recipe in recipes]
    if not named or named[-1] in ("", "null"):
        return arguments
    given = {argument.partition("=")[0].lstrip("+~") for argument in arguments}
    lines = [
        f"{key}={text(value)}"
        for key, value in settings(Path(named[-1]).expanduser())
        if key not in given and not (key.startswith("method.") and "method" in given)
    ]
    return [*lines, *arguments]


def named_paths(arguments: list[str]) -> list[Path]:
    """Return what may be checkpoints' paths on a command line that is not yet composed.

    Names of tasks are among them, and paths with spaces in pieces.
    """
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.partition(".")[0] in ("pretrained", "base", "finetuned"):
            found += re.findall(r"[^][{}\s,:'\"]+", value)
    return [Path(os.path.expanduser(word)) for word in found]  # an unknown ~user is told later


def settings(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a recipe, as keys of the command line and values."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), OnceEach)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"recipe: no file at {path}, taken from {Path.cwd()}.") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"recipe: {path} is a folder; it is one yaml file.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"recipe: {not_utf8(path, error)}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise ValueError(f"recipe: {path}, line {line}, is not YAML: {error.problem}.") from error
    if isinstance(content, dict) and (odd := [key for key in MERGEKIT if key in content]):
        raise ValueError(
            f"recipe: {path} has {odd[0]!r}, as mergekit's do. Here it is pretrained: PATH, "
            f"finetuned: {{task: PATH}}, weights: {{task: 0.5}}, method: {{name: ties, density: "
            f"0.5}} and output: PATH."
        )
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(
            f"recipe: {path} is no mapping of settings. As in: method: {{name: ties, density: "
            f"0.1}}, and lines for pretrained, finetuned and output."
        )
    for key, value in content.items():
        if key == "recipe":
            raise ValueError(f"recipe: {path} names another recipe, which is not read: join them.")
        if key in NESTED and isinstance(value, Mapping):
            own = dict(value)
            if key == "method" and "name" in own:
                yield key, own.pop("name")
            yield from ((f"{key}.{name}", inside) for name, inside in own.items())
        else:
            yield key, value


def text(value: Any) -> str:
    """Return a value as Hydra reads it on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        texts = {k if isinstance(k, str) else text(k): inside for k, inside in value.items()}
        keys = {re.sub(SPECIAL, r"\\\1", key): inside for key, inside in texts.items()}
        return "{" + ", ".join(f"{key}: {text(inside)}" for key, inside in keys.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    return str(value) if isinstance(value, int | float) else quote(str(value))
