"""Command lines that ask something and start no work: --help, --version, `tsv-bench methods`."""

import argparse
from collections.abc import Sequence

import tsv_bench
from tsv_bench.cli.config.search_path import groups, options, own_folders
from tsv_bench.cli.help.choices import choices_page, lists
from tsv_bench.cli.help.page import help_page
from tsv_bench.wording.spelling import nearest


def answer(config_name: str, arguments: Sequence[str]) -> str | None:
    """Return the text that a command line asks for, or None if it asks for work.

    Raises ValueError for help on a choice or an option that there is not.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    try:
        asked, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # said where all flags are looked at
        return None
    words = [word for word in rest if "=" not in word and not word.startswith(("-", "~"))]
    if asked.version:
        return f"tsv-{config_name} {tsv_bench.__version__}"
    # A folder of tsv-task may have such a name.
    listed = [lists()[word] for word in words if word in lists() and config_name != "task"]
    if not asked.help and not (listed and len(rest) == 1):
        return None
    own = own_folders(arguments, ())
    if listed:
        return "\n\n".join(choices_page(group, own) for group in listed)
    pairs = [word.partition("=") for word in rest if "=" in word]
    chosen = {key: choice for key, _, choice in pairs if key in groups(own)}
    for group, choice in chosen.items():
        if choice not in (known := options(group, own)):
            raise ValueError(
                f"unknown {group} {choice!r}{nearest(choice, known)} There are: {', '.join(known)}."
            )
    return help_page(config_name, chosen, words, own)
