"""The folders of configuration: the packaged one, and a user's own that --config-dir names."""

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from tsv_bench.files import paths_below

PACKAGE = Path(__file__).parents[2]
# A wheel has the configuration inside the package, a checkout beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())

GLOBAL = r"^#\s*@package\s+_global_"
EXAMPLE = "my_conf/method/my_method.yaml is found by: --config-dir my_conf method=my_method"


def names_own_folder(arguments: Iterable[str]) -> bool:
    """Return whether a command line names a user's own folder, without looking for it."""
    return any(a.startswith(("--config-dir", "-cd", "hydra.searchpath=")) for a in arguments)


def own_folders(flags: Sequence[str], overrides: Iterable[Override]) -> list[Path]:
    """Return the folders that a command line adds to the packaged configuration.

    Raises ValueError if one does not exist, or has files that Hydra would not read.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    named = [parser.parse_known_args(flags)[0].config_dir]
    for override in overrides:
        if override.key_or_group == "hydra.searchpath":
            value = override.value()
            named += value if isinstance(value, list) else [value]
    folders = [_folder(str(getattr(name, "text", name))) for name in named if name is not None]
    for folder in folders:
        _check_not_hidden(folder)
    return folders


def _folder(name: str) -> Path:
    folder = Path(name.removeprefix("file://"))
    if "://" in name.removeprefix("file://"):
        raise ValueError(f"{name} is no folder; configuration of your own lies in one: {EXAMPLE}")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} for configuration of your own: {EXAMPLE}")
    if (group := folder.resolve().name) in groups() and any(folder.glob("*.yaml")):
        raise ValueError(
            f"{folder} is a folder of one group, {group}; name the one that it lies in: "
            f"--config-dir {folder.parent if folder.name == group else folder / '..'}"
        )
    return folder


def _check_not_hidden(folder: Path) -> None:
    """Check that no packaged file of the same name silently replaces one in ``folder``.

    Raises ValueError that names the first such file.
    """
    for path in sorted(CONF.rglob("*.yaml")):
        own = folder / path.relative_to(CONF)
        if own.is_file() and own.read_bytes() != path.read_bytes():
            raise ValueError(
                f"{own} would not be read, since there is a packaged {own.parent.name} "
                f"{own.stem!r}. Give it a name of its own."
            )


def groups(folders: Iterable[Path] = ()) -> list[str]:
    """Return the groups of the packaged configuration and of a user's own folders."""
    packaged = (path.name for path in CONF.iterdir() if path.is_dir())
    own = (path.parent.name for folder in folders for path in folder.glob("*/*.yaml"))
    return sorted({*packaged, *own} - {"hydra"})  # Hydra's own groups lie within


def options(group: str, folders: Iterable[Path] = ()) -> list[str]:
    """Return a group's options, the packaged ones and those in a user's own folders."""
    homes = [folder / group for folder in (CONF, *folders)]
    found = {
        path.relative_to(home).with_suffix("").as_posix()
        for home in homes
        for path in paths_below(home, ".yaml")
    }
    return sorted(found)


def check_yaml(group: str, name: str, folders: Iterable[Path]) -> None:
    """Check that a user's own file of that name is YAML, and holds settings.

    Raises ValueError with the line of the mistake; Hydra would show a traceback, or pass it over.
    """
    for path in (folder / group / f"{name}.yaml" for folder in folders):
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            content = yaml.load(text, OnceEach)
            OmegaConf.create(content if isinstance(content, dict) else {})
            if not isinstance(content, dict) and (content is not None or group != "experiment"):
                found = "is empty" if content is None else f"is no mapping but {content!r}"
                raise ValueError(
                    f"{path} {found}: a yaml of {group} has lines as name: value. conf/{group}/ "
                    f"of the package has examples."
                )
            if group == "experiment" and not re.search(GLOBAL, text, re.MULTILINE):
                raise ValueError(
                    f"{path} is an experiment without effect: its first line is # @package _global_"
                )
        except GrammarParseError as error:
            raise ValueError(
                f"{path} has a value with ${{ that does not end, or that names nothing, as "
                f"${{..knob}} does."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(not_utf8(path, error)) from error
        except yaml.MarkedYAMLError as error:
            raise ValueError(
                f"{path}, line {error.problem_mark.line + 1}, is not YAML: {error.problem}. "
                f"Between braces or brackets a value such as ${{..knob}} stands in quotes."
            ) from error


class OnceEach(yaml.SafeLoader):
    """A loader that refuses a mapping with the same key twice, of which yaml drops the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem="a list or a mapping stands where a name is expected",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# As in Hydra's yamls: 1e-3 is a number. To yaml it is one with a dot and a sign alone, as 1.0e-3.
OnceEach.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """Return a message of where a file is not UTF-8."""
    line = path.read_bytes()[: error.start].count(b"\n") + 1
    return (
        f"{path}, line {line}, is not UTF-8, as yaml is: it has the byte 0x"
        f"{error.object[error.start]:02x}. Save it as UTF-8; it may be Latin-1 now."
    )


def misplaced(group: str, name: str, folders: Iterable[Path]) -> str:
    """Return a message that a user's own file of that name is in the wrong folder, or ''."""
    for folder in folders:
        for path in sorted(paths_below(folder, (".yaml", ".yml"))):
            if path.stem == Path(name).stem:
                return f" {path} is not it: it would be {folder / group / name}.yaml."
    return ""


def overriding(folders: Sequence[Path]) -> list[str]:
    """Return the overrides by which Hydra searches these folders, too."""
    if not folders:
        return []
    paths = [str(folder.absolute()).replace("'", "\\'") for folder in folders]
    return ["hydra.searchpath=[" + ",".join(f"'file://{path}'" for path in paths) + "]"]
