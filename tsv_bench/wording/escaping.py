"""Text from outside: names that become file names, lines of tables, and what formats need escaped.

A name or a label may come from a Run that somebody else made. It is checked when it is read and
before it is written; then each format escapes what is special in it. LaTeX and html have their own.
"""

import re

MAX_NAME = 100  # bytes; two names and an ending fit the 255 bytes of a file name
MAX_LINE = 1000  # characters
# Control characters, ends of lines, characters that turn the direction of writing, and those that
# UTF-8 or XML lacks.
NOT_IN_A_LINE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# What markdown takes for more than text. An underscore inside a word is text, and so are a "<"
# before a number and a bracket that makes no link.
MARKDOWN = re.compile(
    r"[\\`*|~]|<(?=[A-Za-z/!?])|&(?=#|\w+;)|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])"
)
HTML = {"<": "&lt;", "&": "&amp;"}  # a backslash before these is not read by all that read markdown
FORMULA = ("=", "+", "-", "@")  # at the start of a cell of csv


def check_name(name: object, what: str) -> None:
    """Check that a name may become a part of a file's path.

    ``what`` says whose name it is. Raises ValueError if the name may not.
    """
    if (
        not isinstance(name, str)
        or not 1 <= len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME
        or name.startswith(".")
        or re.search(r"[/\\]", name)
        or NOT_IN_A_LINE.search(name)
    ):
        raise ValueError(
            f"{what} is {name!r:.120}, which becomes a part of file names: it needs 1 to "
            f"{MAX_NAME} bytes, no slash, no backslash, no control character, and no point at "
            f"its start."
        )


def check_line(text: object, what: str) -> None:
    """Check that a text is one line, as tables and terminals need it.

    ``what`` says which text it is. Raises ValueError if it is not.
    """
    if not isinstance(text, str) or len(text) > MAX_LINE or NOT_IN_A_LINE.search(text):
        raise ValueError(
            f"{what} is {text!r:.120}; it needs to be a line of at most {MAX_LINE} characters "
            f"without control characters."
        )


def visible(text: str) -> str:
    r"""Return the text with its control characters and ends of lines written out, as in "\n"."""
    return NOT_IN_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escape_markdown(text: str) -> str:
    """Escape what markdown would take for html, emphasis, links or the end of a cell."""
    return MARKDOWN.sub(lambda found: HTML.get(found[0], f"\\{found[0]}"), text)


def escape_csv(cell: object) -> object:
    """Return a cell of csv: an apostrophe before a text that a spreadsheet would compute."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
