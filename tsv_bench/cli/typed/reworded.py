"""What Hydra says of a configuration that it cannot compose, in words of the yamls and settings."""

import re
from collections.abc import Callable

from tsv_bench.cli.config.search_path import options
from tsv_bench.wording.spelling import nearest

KNOWN: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (
        r"In '(?P<where>[^'/]+)': Could not find '(?P<group>[^']+)/(?P<what>[^'/]+)'",
        lambda m: (
            f"unknown {m['group']} {m['what']!r}"
            f"{nearest(m['what'], options(m['group']))} There are: "
            f"{', '.join(options(m['group']))}; your own in a folder that --config-dir names."
        ),
    ),
    (
        r"In '(?P<where>[^']+)': Could not (?:load|find) '(?P<what>[^']+)'",
        lambda m: (
            f"{m['where']}.yaml names {m['what']} in its defaults, and there is no {m['what']}.yaml"
            f" among the packaged yamls or your own. Another group is named from the top, as in "
            f"/task@tasks: [signs]."
        ),
    ),
    (
        r"In '(?P<where>[^']+)': Could not override '(?P<what>[^']+)'",
        lambda m: (
            f"{m['where']}.yaml overrides {m['what']}, which is no group of this command. It is "
            f"named from the top, as in: override /method: ties."
        ),
    ),
    (
        r"Multiple values for (?P<what>[^.]+)\. To override a value use 'override \S+: (?P<to>.+)'",
        lambda m: (
            f"{m['what']} is chosen already. On the command line that is changed by {m['what']}="
            f"{m['to']}, and in an experiment's defaults by: override /{m['what']}: {m['to']}"
        ),
    ),
    (
        r"In '(?P<where>[^']+)': \w+ raised while composing config:\s*(?P<what>.*)",
        lambda m: (
            f"{m['where']}.yaml does not fit what it is put into: a list stands where a mapping "
            f"is expected, or a mapping where a list is ({m['what']})."
        ),
    ),
    (
        r"Could not override '(?P<what>hydra/[^']+)'\. No match in the defaults list",
        lambda m: (
            f"{m['what']}= has nothing to choose here. hydra/sweeper/sampler= goes with "
            f"hydra/sweeper=optuna."
        ),
    ),
    (
        r"Could not override '(?P<what>[^']+)'\.\s*To append to your config use",
        lambda m: f"unknown key {m['what']!r}: what is chosen here has no such setting.",
    ),
    (
        r"Error merging override (?P<what>.+?)(?:\n|: )(?P<why>.*)",
        lambda m: f"{m['what']}: {m['why']}",
    ),
)


def reworded(message: str) -> str:
    """Return what a user is told in place of Hydra's message; an unknown one without its paths."""
    for pattern, words in KNOWN:
        if found := re.match(pattern, message.strip()):
            return words(found)
    return message.split("\n    full_key:")[0].split("Config search path:")[0].strip()
