"""A user's mistakes: which errors are some, and what is said about them."""

import errno
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

NUM_FILES = 8192  # that a process may have open: more than all shards of a merge

# What Hydra, Python and OmegaConf say of a yaml's _target_, of its settings and of ${...}.
TARGET = re.compile(r"Error loading '([^']+)'")
UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
LACKING = re.compile(r"(\w+)\.__init__\(\) missing \d+ required .*arguments?: (.+)")
REFERENCES = (
    (
        r"Interpolation key '(.+)' not found",
        "${{{0}}} is no setting. A setting is named from the top, as in ${{method.name}}, and a "
        "variable of the environment is ${{oc.env:NAME}}.",
    ),
    (r"Recursive interpolation detected", "${{...}} refers to itself. Name another setting."),
    (r".*Environment variable '(.+)' not found", "the environment has no variable {0}."),
    (
        r"Unsupported interpolation type (.+)",
        "${{{0}:...}} is unknown. There are ${{oc.env:NAME}}, ${{now:%Y}} and ${{hydra:job.num}}.",
    ),
)

# Errors that a user can cause. Any other is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, OmegaConfBaseException, InstantiationException)


def message_of(error: BaseException) -> str | None:
    """Return what is said about an error that a user can cause; None for any other."""
    if isinstance(error, InstantiationException):  # Hydra wraps what a target raised
        error = error.__cause__ or error
    if isinstance(error, ImportError) and (found := TARGET.match(str(error))):
        return f"there is no {found[1]}: _target_ names a function or a class, as module.name."
    if not isinstance(error, (*USER_ERRORS, *_out_of_memory())):
        return None
    if isinstance(error, OmegaConfBaseException) and (said := _of_reference(error)):
        return said
    message = str(error).strip().split("\n    full_key:")[0]
    if isinstance(error, TypeError) and (found := UNEXPECTED.match(message)):
        message = (
            f"{found[1]} has no setting {found[2]!r}. Take it away, or look for the right name."
        )
    if isinstance(error, TypeError) and (found := LACKING.match(message)):
        message = f"{found[1]} lacks a setting that it needs: {found[2]}."
    if isinstance(error, MissingMandatoryValue):
        key = message.rpartition(": ")[2]
        message = f"{key}= is missing, which has no default. As in: {key}=VALUE"
    if os.strerror(errno.EMFILE) in message:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        message += (
            f". This process may have {limit} open, and every shard of a checkpoint is one. "
            f"Raise the limit with ulimit -n {NUM_FILES}, or give checkpoints in fewer shards."
        )
    return message


def _of_reference(error: OmegaConfBaseException) -> str | None:
    """Return what is said of ${...} in a value that refers to nothing; None for other errors."""
    said = str(error).split("\n")[0]
    for pattern, words in REFERENCES:
        if found := re.match(pattern, said):
            where = f"{error.full_key}: " if error.full_key else ""
            return where + words.format(*found.groups())
    return None


def with_messages(program: str, work: Callable[[], Any]) -> Any:
    """Call ``work`` and return its result; end a user's mistake with one message and exit code 1.

    HYDRA_FULL_ERROR=1 shows the traceback instead.
    """
    try:
        return work()
    except Exception as error:
        message = message_of(error)
        if message is None or full_errors():
            raise
        print(f"{program}: error: {message}", file=sys.stderr)
        sys.exit(1)


def or_exit(program: str, work: Callable[[], Any]) -> None:
    """Call ``work`` as `with_messages` does, and end the process after the traceback of any error.

    For callbacks, whose exceptions Hydra turns into warnings, to go on.
    """
    try:
        with_messages(program, work)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def full_errors() -> bool:
    """Return whether the user wants tracebacks of mistakes, too."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def _out_of_memory() -> tuple[type[Exception], ...]:
    """Return the error of a GPU whose memory is full, if torch is there to raise it."""
    error = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    return (error,) if error else ()
