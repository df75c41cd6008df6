"""What all commands share: the configuration, and messages for mistakes."""

import atexit
import errno
import functools
import gc
import os
import resource
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm.contrib.logging import logging_redirect_tqdm

from tsv_bench import bars
from tsv_bench.cli.config.overrides import checked
from tsv_bench.cli.config.search_path import CONF, names_own_folder
from tsv_bench.cli.config.void_settings import warn_of_void_settings
from tsv_bench.cli.typed.recipe import with_recipe
from tsv_bench.cli.work.machine import check_threads
from tsv_bench.methods.knobs import check_switch

SPINS = "500"  # of a thread that waits, about 10 microseconds

# New objects before a look for garbage. By default it is 700, and importing torch, composing
# configurations and drawing figures, whose objects stay, are a tenth slower for it.
RARELY = 20_000, 20, 20

NUM_FILES = 8192  # that a process may have open: more than all shards of a merge

# The command as its user has typed it, for model cards.
typed_command: ContextVar[str | None] = ContextVar("typed_command", default=None)

ENDING = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C: temporaries are removed

# Errors that a user can cause. Any other is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, OmegaConfBaseException, InstantiationException)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of the composed configuration a console command."""

    def decorate(run: Callable[[DictConfig], Any]) -> Callable[[], None]:
        program = f"tsv-{config_name}"

        @functools.wraps(run)
        def guarded(config: DictConfig) -> Any:
            def warn_and_run() -> Any:
                expand_home(config)
                progress = config.get("progress", True)
                check_switch("progress", progress)
                if "threads" in config:
                    check_threads(config.threads)
                warn_of_void_settings(config)
                with bars.showing(progress):
                    return run(config)  # Hydra hands it to its callbacks

            with logging_redirect_tqdm():  # prints messages above the progress bars
                return with_messages(program, warn_and_run)

        def main() -> None:
            # The command as typed, or by its path if the shell would not find it, as under make.
            found = shutil.which(program) is not None
            typed = shlex.join([program if found else sys.argv[0], *sys.argv[1:]])
            typed_command.set(shlex.join([program, *sys.argv[1:]]))

            def compose_and_run() -> None:
                if names_own_folder(sys.argv[1:]):
                    # A console script lacks the current folder. It goes last, so that no file
                    # here hides a library.
                    sys.path.append(os.getcwd())
                arguments = sys.argv[1:]
                if config_name == "merge":
                    arguments = with_recipe(arguments)
                sys.argv[1:] = checked(config_name, arguments)
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(
                    guarded
                )()

            raise_file_limit()
            wait_politely()
            gc.set_threshold(*RARELY)
            atexit.register(leave_quickly)
            try:
                with ended_by_signals():
                    with_messages(program, compose_and_run)
            except KeyboardInterrupt as stop:
                number = stop.args[0] if isinstance(stop, Ended) else signal.SIGINT
                how = f"ended by {number.name}" if isinstance(stop, Ended) else "interrupted"
                print(
                    f"\n{program}: {how}. What was finished is kept; go on with: {typed}",
                    file=sys.stderr,
                )
                sys.exit(128 + number)  # as shells have it

        return main

    return decorate


class Ended(KeyboardInterrupt):
    """A signal has asked the process to end; the argument is the signal."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended on SIGTERM and SIGHUP, unless they are ignored (nohup) or handled already.

    Not under torchrun, whose processes may wait for each other outside Python for long.
    """

    def end(number: int, frame: object) -> None:
        raise Ended(signal.Signals(number))

    here = threading.current_thread() is threading.main_thread() and "LOCAL_RANK" not in os.environ
    numbers = [n for n in ENDING if here and signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def wait_politely() -> None:
    """Let torch's threads give their cores away soon while they wait; before torch is imported.

    By default they spin for long, and beside another process on the same cores they wait for each
    other's turn: training of a small network took 10 times as long. results/engine.md has numbers.
    """
    if "OMP_WAIT_POLICY" not in os.environ:  # what a user has chosen stays
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def leave_quickly() -> None:
    """Spare a process that ends the last looks for garbage: half a second among torch's objects.

    Not beside libraries made by nanobind, which would name all that is left then.
    """
    if not {"triton", "jaxlib"} & sys.modules.keys():
        gc.freeze()


def raise_file_limit() -> None:
    """Let this process have `NUM_FILES` open, or as many as it may: every shard is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = NUM_FILES if hard == infinite else min(hard, NUM_FILES)
    if soft != infinite and soft < wanted:
        with suppress(ValueError, OSError):  # a system may have a limit beside the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def with_messages(program: str, work: Callable[[], Any]) -> Any:
    """Call ``work`` and return its result; end a user's mistake with one message and exit code 1.

    HYDRA_FULL_ERROR=1 shows the traceback instead.
    """
    try:
        return work()
    except Exception as error:
        if not isinstance(error, (*USER_ERRORS, *_out_of_memory())):
            raise
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if isinstance(error, InstantiationException):  # Hydra wraps what a target raised
            error = error.__cause__ or error
        message = str(error).strip().split("\n    full_key:")[0]
        if os.strerror(errno.EMFILE) in message:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            message += (
                f". This process may have {limit} open, and every shard of a checkpoint is one. "
                f"Raise the limit with ulimit -n {NUM_FILES}, or give checkpoints in fewer shards."
            )
        print(f"{program}: error: {message}", file=sys.stderr)
        sys.exit(1)


def _out_of_memory() -> tuple[type[Exception], ...]:
    """Return the error of a GPU whose memory is full, if torch is there to raise it."""
    error = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    return (error,) if error else ()


def expand_home(node: DictConfig) -> None:
    """Replace a leading ~ by the home folder, wherever a text begins with it as a path does."""
    keys = range(len(node)) if OmegaConf.is_list(node) else list(node)
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        if OmegaConf.is_config(value):
            expand_home(value)
        elif isinstance(value, str) and (value == "~" or value.startswith("~/")):
            node[key] = os.path.expanduser(value)


def plain(node: DictConfig) -> dict:
    """Return a configuration node as plain data, its interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
