"""The text of --help, made of the comments that stand in the yamls."""

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tsv_bench.cli.config.method_yaml import NOT_KNOBS
from tsv_bench.cli.config.search_path import CONF, options
from tsv_bench.cli.help.comments import Setting, examples, groups, settings, summary
from tsv_bench.methods.needs import KEYS
from tsv_bench.wording.spelling import nearest

WIDTH = 100
LEFT, LONGEST = 28, 40  # characters: of the column beside comments, and of a default
NUM_EXAMPLES = 3
MOST_NAMED = 10  # choices of a group; more are left to a list of their own
SENTENCE = re.compile(r"(?<=[\w)\]}'])\. (?=[A-Z])")


def help_page(
    config_name: str,
    chosen: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
    own: Sequence[Path] = (),
) -> str:
    """Return the help of a command: usage, examples, options and the first sentence on each.

    ``chosen``: group -> choice, whose options are shown instead. ``keys``: options of which all is
    shown that is said. ``own``: the user's own folders. Raises ValueError for an unknown key.
    """
    path, program, chosen = CONF / f"{config_name}.yaml", f"tsv-{config_name}", chosen or {}
    found = options_of(path)
    titles = {"options, with their defaults": found}
    for group, choice in chosen.items():
        inside = of_choice(group, choice, own, config_name)
        titles[f"options of {group}={choice}"] = inside
        found = [*found, *inside]
    if keys:
        return "\n".join(_in_full(found, keys))
    if chosen:
        titles.pop("options, with their defaults")
    else:
        titles = {title: map(_short, inside) for title, inside in titles.items()}
    taken = groups(path)
    lines = [
        *textwrap.wrap(summary(path), WIDTH),
        "",
        f"usage: {program} [group=choice] [key=value] [flags], as in",
        "",
    ]
    lines += [f"  {example}" for example in examples(path)[:NUM_EXAMPLES]]
    rows = [(f"{g.key}={chosen.get(g.key, g.value)}", _choices(program, g, own)) for g in taken]
    lines += _section("groups, with their defaults", rows)
    for title, inside in titles.items():
        lines += _section(title, [(f"{s.key}={s.value}", s.comment) for s in inside])
    return "\n".join(lines + _section("flags", _flags(program, taken, found)))


def options_of(path: Path, prefix: str = "") -> list[Setting]:
    """Return the settings of a yaml that a user sets: not what says how it is built."""
    launch = settings(CONF / "launch.yaml") if path.parent == CONF else []
    kept = [s for s in settings(path) if not prefix or s.key not in ("name", "label", "paper")]
    kept = [s for s in kept if s.comment or not s.value.startswith("${..")]
    return [Setting(prefix + s.key, _value(s, path), s.comment) for s in [*kept, *launch]]


def of_choice(group: str, choice: str, own: Sequence[Path], config_name: str) -> list[Setting]:
    """Return the settings of a group's choice that a command heeds, as they are typed.

    Of a method: its knobs, and in tsv-bench its alphas and what it sees.
    """
    files = [folder / group / f"{choice}.yaml" for folder in (CONF, *own)]
    found = [s for f in files if f.is_file() for s in options_of(f, f"{group}.")]
    seen = {"alphas", *KEYS} - {"needs", "unless"} if config_name == "bench" else set()
    hidden = NOT_KNOBS - seen if group == "method" else set()
    return [s for s in found if s.key.split(".")[1] not in hidden]


def _in_full(found: Sequence[Setting], keys: Sequence[str]) -> list[str]:
    """Return all that is said of options. Raises ValueError for one that there is not."""
    lines = []
    for key in keys:
        inside = [s for s in found if s.key == key or s.key.startswith(f"{key}.")]
        if not inside:
            known = [s.key for s in found]
            raise ValueError(
                f"--help {key}: there is no option {key!r}{nearest(key, known)} There are: "
                f"{', '.join(known)}."
            )
        lines += _section("", [(f"{s.key}={s.value}", s.comment) for s in inside])[2:]
    return lines


def _short(setting: Setting) -> Setting:
    first = SENTENCE.split(setting.comment)[0]
    return Setting(setting.key, textwrap.shorten(setting.value, LONGEST, placeholder=" ..."), first)


def _flags(
    program: str, taken: Sequence[Setting], found: Sequence[Setting]
) -> list[tuple[str, str]]:
    several = [g.key for g in taken if g.key == "method"] or [g.key for g in taken][:1]
    flags = [
        ("--help KEY", f"all that is said of an option, as in {program} --help {found[0].key}")
    ]
    if several and "@" not in several[0]:
        flags.append((f"{several[0]}=NAME --help", f"the options of another {several[0]}"))
    return [
        *flags,
        ("--multirun, -m", "a job for each value of key=a,b"),
        ("--config-dir DIR", "yamls of your own: DIR/method/my_method.yaml is method=my_method"),
        ("--cfg job", "show the configuration as it would be taken, and do nothing"),
        ("--version", "of tsv-bench"),
    ]


def _choices(program: str, group: Setting, own: Sequence[Path]) -> str:
    names = options(group.key.partition("@")[0], own)
    if len(names) > MOST_NAMED:
        several = f"one of {len(names)}: {program} {plural(group.key.partition('@')[0])}"
    else:
        several = ", ".join(names)
    return f"{several}; {group.comment}" if group.comment else several


def plural(group: str) -> str:
    """Return the word that lists a group's choices."""
    return group if group.endswith("s") else f"{group}s"


def _value(setting: Setting, path: Path) -> str:
    """Return a default as it is taken where it is made of others, the home folder as ~."""
    value = setting.value
    if "${" in value:
        try:
            value = str(OmegaConf.select(OmegaConf.load(path), setting.key))
        except OmegaConfBaseException:  # made of what another file says
            return value
        home = os.path.expanduser("~")
        value = value.replace(home, "~", 1) if value.startswith(f"{home}/") else value
    return value


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return a title and rows in two columns; long comments go on below themselves.

    Rows without a comment stand side by side.
    """
    if not rows:
        return []
    width = max((len(left) for left, _ in rows if len(left) <= LEFT), default=LEFT)
    lines, bare = ["", title], []
    for left, right in [*rows, ("", " ")]:
        if not right:
            bare.append(left)
            continue
        lines += textwrap.wrap("  ".join(bare), WIDTH, initial_indent="  ", subsequent_indent="  ")
        bare = []
        first, indent = f"  {left:{width}}  ", " " * (width + 4)
        lines += textwrap.wrap(right, WIDTH, initial_indent=first, subsequent_indent=indent)
    return lines
