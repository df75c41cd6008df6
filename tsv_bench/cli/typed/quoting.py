"""Values of a command line that Hydra's grammar would read as something else than text.

Paths have commas, parentheses, ~, # and letters of every language; Hydra's grammar does not. A
value that it cannot read is put in quotes here, as its user meant it. What still cannot be read is
answered by how to quote it.
"""

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import CommonTokenStream, InputStream, OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser

from tsv_bench.cli.config.search_path import groups

PATHS = (
    "pretrained", "base", "output", "figure", "recipe", "finetuned", "cache.folder",
    "checkpoints.folder", "texts",
)  # fmt: skip
PATHS_IN = ("paths.", "finetuned.", "inputs.", "means.", "fisher.")  # keys of paths begin so
SWEEPS = ("--multirun", "-m")
IN_MAPPING = re.compile(r"""(:\s*)([^\s'"{}\[\],:][^{}\[\],]*?)(\s*(?=[,}]))""")
KEY = re.compile(r"[~+]*[\w@/.$-]+", re.ASCII)
SWEPT = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)")
SPECIAL = r"([\\()\[\]{}:=, \t])"


def readable(texts: Iterable[str], flags: Iterable[str] = ()) -> list[str]:
    """Return the overrides with quotes where Hydra needs them.

    Raises ValueError that says how to quote what cannot be read.
    """
    swept = is_swept(flags)
    return [_readable(plain_keys(text), swept) for text in texts]


def is_swept(flags: Iterable[str]) -> bool:
    """Return whether the flags ask for a run with each of several values."""
    return any(flag in SWEEPS for flag in flags)


def _is_path(key: str) -> bool:
    return key in PATHS or key.startswith(PATHS_IN)


def _readable(text: str, swept: bool) -> str:
    key = text.partition("=")[0].lstrip("+")
    names_several = key == "device" and "," in text and "=[" not in text
    if key == "score" or names_several:  # a sweep over devices would give the same numbers
        return as_text(text)
    found = _parsed(text)
    if found is not None:
        # Without a sweep a comma is a part of the name.
        listed = _is_path(key) and not swept and found.is_sweep_override()
        return as_text(text) if listed else text
    value = text.partition("=")[2]
    tried = text
    if value.startswith("{"):
        tried = IN_MAPPING.sub(_quoted_value, text)
    elif _is_path(key) and value[:1] not in ("[", "'", '"'):
        tried = as_text(text)
    if _parsed(tried) is not None:
        return tried
    text = text.replace("task@suite.tasks=", "suite.tasks=", 1)
    if not KEY.fullmatch(text.partition("=")[0]):
        raise ValueError(
            f"cannot read {text}: a setting is key=value without spaces around =, and "
            f"{text.partition('=')[0]!r} is no key, which has a-z, digits, _ and points."
        )
    if key in groups():
        raise ValueError(
            f"cannot read {text}: a {key} is chosen by its name alone, and what it has is set "
            f"beside it, as in method=ties method.density=0.1. Of several names, none has a space "
            f"before it: --multirun {key}=a,b."
        )
    raise ValueError(
        f"cannot read {text}: outside of quotes , = # ( ) [ ] {{ }} : ~ and letters other than a-z "
        f"mean something else here than text. {how_to_quote(text)}"
    )


def check_keys_once(text: str) -> None:
    """Raise ValueError if a mapping in an override has a key twice: Hydra would take the last."""
    if "{" not in text:
        return
    waiting = [OverrideParser(CommonTokenStream(OverrideLexer(InputStream(text)))).override()]
    while waiting:
        children = list(waiting.pop().getChildren())
        waiting += [child for child in children if hasattr(child, "getChildren")]
        pairs = [c for c in children if isinstance(c, OverrideParser.DictKeyValuePairContext)]
        keys = [pair.getChild(0).getText().strip("'\"") for pair in pairs]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(
                f"{text.split('=')[0]}= has {twice[0]!r} twice, of which only the last would count."
                f" Give each a name of its own."
            )


def quote_compared(text: str) -> str:
    """Return compare=[ties:density=0.1,ties] with its items quoted: Hydra allows no = in a list."""
    inside = text.removeprefix("compare=[").removesuffix("]")
    if any(mark in inside for mark in "'\"[]"):
        return text
    return f"compare=[{','.join(repr(name.strip()) for name in inside.split(','))}]"


def how_to_quote(text: str) -> str:
    """Return a sentence with the same setting in quotes, for a shell and for Hydra within it."""
    key, _, value = text.partition("=")
    one = key in PATHS and key != "finetuned" or key.startswith(PATHS_IN)
    if value.startswith(("[", "{")) and value[-1] in ",:":  # the shell has split it at a space
        return f"Put the whole in quotes for the shell: '{key}={value} ...'."
    if key == "suite.tasks" or re.fullmatch(r"{[^:]*}", value) and "," in value and not one:
        return f"A list is {key}=[a,b]."
    if SWEPT.fullmatch(value):
        return (
            f"Sweeps are {key}=a,b or choice(a,b), range(start,stop,step), glob(pattern) and, by "
            f"Optuna, interval(low,high), of numbers."
        )
    if value.startswith("{") and not one:
        return (
            f"Put the whole in quotes for the shell, and values in quotes of the other kind: "
            f'{key}=\'{{a: "path of a", b: "path of b"}}\'.'
        )
    if value.startswith("[") and not one:
        return f'As in: {key}=\'["first", "second"]\'.'
    inside = value.strip("'\"")
    return f"As in: {key}='\"{inside}\"'."


def plain_keys(text: str) -> str:
    """Return alpha={'*attn*': 0.5} with its keys escaped instead of quoted, which Hydra refuses."""

    def escaped(found: re.Match) -> str:
        return found[1] + re.sub(SPECIAL, r"\\\1", found[3]) + ":"

    key, equals, value = text.partition("=")
    if not value.startswith("{"):
        return text
    return key + equals + re.sub(r"""([{,]\s*)(['"])([^'"]*)\2\s*:""", escaped, value)


def as_text(text: str) -> str:
    """Return score=my_eval {model} with its value quoted: Hydra takes braces for a mapping."""
    key, _, value = text.partition("=")
    if not value or value == "null" or value[0] in "'\"":
        return text
    return f"{key}={quote(value)}"


def quote(value: str) -> str:
    """Return a text in quotes as Hydra reads them."""
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"


def _quoted_value(found: re.Match) -> str:
    known = re.fullmatch(r"null|true|false|[-+.\deE]+", found[2])
    return found[0] if known else f"{found[1]}{quote(found[2])}{found[3]}"


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException:
        return None
