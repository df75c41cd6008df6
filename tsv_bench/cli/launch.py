"""What all commands share: the configuration, and messages for mistakes."""

import atexit
import functools
import gc
import operator
import os
import resource
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm.contrib.logging import logging_redirect_tqdm

from tsv_bench import bars
from tsv_bench.cli.config.overrides import as_typed, checked
from tsv_bench.cli.config.search_path import CONF, names_own_folder
from tsv_bench.cli.config.void_settings import warn_of_void_settings
from tsv_bench.cli.help.answers import answer
from tsv_bench.cli.printing import show
from tsv_bench.cli.sweep.command import Check, Command, Made, current, typed_command
from tsv_bench.cli.sweep.elsewhere import Home, at_home, check_alike
from tsv_bench.cli.sweep.ending import end
from tsv_bench.cli.sweep.job import recorded
from tsv_bench.cli.typed.mistakes import NUM_FILES, with_messages
from tsv_bench.cli.typed.plain_path import with_folder
from tsv_bench.cli.typed.recipe import named_paths, with_recipe
from tsv_bench.cli.typed.repeated import of_job, repeating
from tsv_bench.cli.typed.several import first_of_several
from tsv_bench.cli.work.machine import check_threads
from tsv_bench.files.ahead import begin_hashing
from tsv_bench.methods.knobs import check_switch
from tsv_bench.process.extras import check_installed
from tsv_bench.process.signals import ended_by_signals, said_of, signal_of

SPINS = "500"  # of a thread that waits, about 10 microseconds

# New objects before a look for garbage. By default it is 700, and importing torch, composing
# configurations and drawing figures, whose objects stay, are a tenth slower for it.
RARELY = 20_000, 20, 20

# Commands that need the extra bench; the others work on checkpoint files alone.
NEED_BENCH = ("bench", "fetch", "finetune", "observe", "pretrain", "report")


def command(
    config_name: str, check: Check, **parts: Any
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of the composed configuration a console command.

    ``check`` is what the function itself begins with; a sweep checks all its jobs by it, before the
    first starts. ``parts``: what else `Command` takes.
    """

    def decorate(run: Callable[[DictConfig], Any]) -> Callable[[], None]:
        program = f"tsv-{config_name}"
        homes: list[Home] = []  # the one process in which this command was started
        shared = parts.get("shared", ())

        def prepared(config: DictConfig) -> None:
            if config_name in NEED_BENCH:
                check_installed("bench", program)
            prepare(config)

        def check_job(config: DictConfig) -> None:
            prepared(config)
            with repeating(of_job(sys.argv[1:])):
                check(config)

        @functools.wraps(run)
        def guarded(config: DictConfig) -> Any:
            def warn_and_run(arguments: Sequence[str] = sys.argv[1:]) -> Any:
                prepared(config)
                warn_of_void_settings(config)
                shown = bars.showing(config.get("progress", True))
                with shown, repeating(of_job(arguments)):
                    return run(config)

            def run_elsewhere(home: Home) -> Any:
                check_alike(home, {key: OmegaConf.select(config, key) for key in shared})
                return warn_and_run(home.arguments)

            with logging_redirect_tqdm():  # prints messages above the progress bars
                hydra_config = HydraConfig.get()
                if hydra_config.mode == RunMode.MULTIRUN:
                    if not homes or homes[0].is_here:
                        return recorded(program, warn_and_run)
                    raise_file_limit()
                    target = hydra_config.launcher._target_
                    with at_home(homes[0], hydra_config.runtime.output_dir, target):
                        return recorded(program, lambda: run_elsewhere(homes[0]))
                made = with_messages(program, warn_and_run)
                return made.metric if isinstance(made, Made) else made

        def main() -> None:
            # The command as typed, or by its path if the shell would not find it, as under make.
            found = shutil.which(program) is not None
            typed = shlex.join([program if found else sys.argv[0], *sys.argv[1:]])
            homes[:] = [Home.here(program, sys.argv[1:])]
            typed_command.set(homes[0].typed)

            def compose_and_run() -> None:
                if (text := answer(config_name, sys.argv[1:])) is not None:
                    return show(text)
                if names_own_folder(sys.argv[1:]):
                    # A console script lacks the current folder. It goes last, so that no file
                    # here hides a library.
                    sys.path.append(os.getcwd())
                arguments = sys.argv[1:]
                if config_name == "merge":
                    arguments = with_recipe(arguments)
                    if not {"-m", "--multirun"} & set(arguments):  # jobs may run elsewhere
                        begin_hashing(named_paths(arguments))
                if config_name == "task":
                    arguments = with_folder(arguments)
                sys.argv[1:] = checked(config_name, arguments)
                if config_name == "fetch":
                    sys.argv[1:] = first_of_several(config_name, sys.argv[1:])
                current.set(
                    Command(
                        program=program,
                        arguments=sys.argv[1:],
                        check=check_job,
                        mark=homes[0].mark,
                        **parts,
                    )
                )
                start = hydra.main(str(CONF), config_name, version_base="1.3")(guarded)
                with repeating(sys.argv[1:]):
                    try:
                        start()
                    except SystemExit:  # a launcher or a sweeper failed; jobs may have ended before
                        end()
                        raise

            raise_file_limit()
            wait_politely()
            gc.set_threshold(*RARELY)
            atexit.register(leave_quickly)
            if hasattr(sys.stdout, "reconfigure"):  # a letter that it lacks ends nothing
                sys.stdout.reconfigure(errors="replace")
            try:
                with ended_by_signals():
                    with_messages(program, compose_and_run)
            except KeyboardInterrupt as stop:
                print(
                    f"\n{program}: {said_of(stop)}. What was finished is kept; go on with: {typed}",
                    file=sys.stderr,
                )
                sys.exit(128 + signal_of(stop))  # as shells have it

        return main

    return decorate


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


def prepare(config: DictConfig) -> None:
    """Expand ~ in paths and check what all commands have. Raises ValueError if it is wrong."""
    expand_home(config)
    check_switch("progress", config.get("progress", True))
    check_paths(config)
    if "threads" in config:
        check_threads(config.threads)


def expand_home(node: DictConfig) -> None:
    """Replace a leading ~ by the home folder, wherever a text begins with it as a path does."""
    for *places, key in _at_home(OmegaConf.to_container(node)):
        parent = functools.reduce(operator.getitem, places, node)
        parent[key] = os.path.expanduser(parent[key])


def _at_home(plain: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each text with a leading ~."""
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(value, dict | list):
            yield from ((key, *more) for more in _at_home(value))
        elif isinstance(value, str) and (value == "~" or value.startswith("~/")):
            yield (key,)


def check_paths(config: DictConfig) -> None:
    """Raise ValueError unless all of ``paths`` are paths, and the cache's folder is one or null."""
    found = {f"paths.{key}": config.paths[key] for key in config.get("paths", ())}
    if "cache" in config and config.cache.folder is not None:
        found["cache.folder"] = config.cache.folder
    for key, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"{key}={as_typed(value)} is not a path. As in: {key}=my_folder")


def plain(node: DictConfig) -> dict:
    """Return a configuration node as plain data, its interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
