"""The work of tsv-fetch."""

import logging
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.cli.config.needs import lacking, needs_of, refuse_lacking
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.data import SPLITS
from tsv_bench.data.cache import bytes_per_image, in_files
from tsv_bench.files import check_room
from tsv_bench.models.quick_import import open_clip
from tsv_bench.wording.columns import align

log = logging.getLogger(__name__)

HEADER = ("what", "repository", "size", "licence", "state")


def fetch(configs: Sequence[DictConfig], *, check: bool, offline: str) -> None:
    """Fetch what is missing, or with ``check`` compare all that is here; print a table of it.

    ``configs``: of all cells that it is for. ``offline``: the command that runs them.
    """
    needs = list(dict.fromkeys(need for config in configs for need in needs_of(config)))
    offline = f"HF_HUB_OFFLINE=1 {offline}"
    if not needs:
        print(f"Nothing to fetch: all of it lies in the package or in your folders.\n{offline}")
        return
    pixels = pixel_bytes(configs)
    states, problems = listed(needs, check, pixels)
    print(render(states, pixels))
    if check:
        refuse_lacking(states)
    else:
        fetch_missing(states, problems)
    print(f"All of it is here. This works without a network now:\n{offline}")


def pixel_bytes(configs: Iterable[DictConfig]) -> int:
    """Return how much the decoded images of all cells take, each task once for an image size.

    Training images count where checkpoints are fine-tuned. A drawn task takes little.
    """
    found: dict[tuple[str, str, int], int] = {}
    for config in configs:
        size = image_size(config.backbone.load.get("architecture", ""))
        source = config.get("checkpoints")
        fine_tunes = source is None or "finetuning" in source
        for task in make_tasks(config.suite.tasks).values():
            if size is None or not in_files(task):
                continue
            for split in SPLITS if fine_tunes else ("val", "test"):
                count = task.source.num_images(split)
                found[task.fingerprint, split, size] = count * bytes_per_image(size)
    return sum(found.values())


def image_size(architecture: str) -> int | None:
    """Return the pixels of an image's side, or None for an architecture that does not say."""
    settings = open_clip.get_model_config(architecture) or {}
    size = settings.get("vision_cfg", {}).get("image_size")
    return size if isinstance(size, int) else None


def listed(
    needs: Sequence[hub.Need], check: bool, pixels: int = 0
) -> tuple[list[hub.State], dict[hub.Need, str]]:
    """Return the state of each need, and the error message of each that the hub did not list.

    With ``check`` the files here are hashed, and the hub is not asked. Raises NoNetwork if the hub
    cannot be reached.
    """
    if check:
        return [hub.state(need, check=True) for need in needs], {}
    states, problems = [], {}
    for need in needs:
        try:
            states.append(hub.look_up(need))
        except hub.NoNetwork as error:  # which all others would meet, too
            print(render([hub.state(need) for need in needs], pixels))
            raise without_network(needs, error) from error
        except OSError as error:
            states.append(hub.state(need))
            problems[need] = str(error)
    return states, problems


def fetch_missing(states: Sequence[hub.State], problems: dict[hub.Need, str]) -> None:
    """Fetch all that can be fetched. Raises one OSError with the problems of the rest."""
    possible = [state for state in states if not state.here and state.need not in problems]
    if possible:
        check_room(hub.cache_folder(), sum(s.missing_bytes for s in possible), "HF_HOME=")
    for state in possible:
        try:
            log.info(f"{state.need}: {hub.fetch(state.need)}")
        except hub.NoNetwork as error:  # lost in the meantime
            raise without_network([s.need for s in states], error) from error
        except OSError as error:
            problems[state.need] = str(error)
    if problems:
        raise OSError("\n".join(problems.values()))


def without_network(needs: Sequence[hub.Need], error: hub.NoNetwork) -> hub.NoNetwork:
    """Return the error with a list of all that is still missing."""
    return hub.NoNetwork(f"{lacking([hub.state(need) for need in needs])}\n{error}")


def render(states: Sequence[hub.State], pixels: int = 0) -> str:
    """Return the states as a table, and below it what is still to be fetched and to be decoded."""
    rows = [HEADER]
    for s in states:
        rows.append((s.need.what, s.need.repo, hub.amount(s.num_bytes), s.licence or "?", str(s)))
    missing = sum(state.missing_bytes for state in states)
    known = "" if all(s.num_bytes is not None for s in states if not s.here) else "at least "
    lines = [align(rows, gap=2, num_left=len(HEADER)), f"to fetch: {known}{hub.amount(missing)}"]
    if pixels:
        lines.append(f"decoded pixels: {hub.amount(pixels)}, which the runs write to paths.data=")
    return "\n".join(lines)
