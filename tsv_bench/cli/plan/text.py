"""The text of a plan: a line for each cell, what is made first, and about how long it all takes."""

from collections.abc import Sequence

from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.cli.plan.cells import Planned, planned
from tsv_bench.cli.plan.seconds import Seconds, readable
from tsv_bench.cli.printing import show
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.wording import suggested
from tsv_bench.wording.columns import align

HEADER = ("backbone", "suite", "method", "seed", "state", "images", "about")


def show_plan(configs: Sequence[DictConfig], swept: Sequence[str] = ("",)) -> None:
    """Print the plan of cells, of which ``swept`` says what is theirs. Nothing is made.

    Raises ValueError if a cell cannot run, after the plan is printed.
    """
    devices = set_up_machine(configs[0]).devices
    cells = [planned(config, own) for config, own in zip(configs, swept, strict=True)]
    show(render(cells, Seconds(configs[0].paths.runs, devices), ",".join(devices)))
    if wrong := [f"{name_of(cell)}: {cell.problem}" for cell in cells if cell.problem]:
        raise ValueError("\n".join([f"{len(wrong)} of {len(cells)} cannot run:", *wrong]))


def render(cells: Sequence[Planned], seconds: Seconds, device: str) -> str:
    """Return the text of a plan."""
    rows, times, known_by = [HEADER], [], []
    for cell in cells:
        rows.append((cell.backbone, cell.suite, name_of(cell), str(cell.config.seed)))
        if not cell.to_run:
            rows[-1] += ("finished" if cell.finished else "cannot run", "", "")
            continue
        taken, by = seconds.of(cell)
        times.append(taken)
        known_by.append(by)
        images = "?" if cell.images is None else f"{cell.images:,}"
        rows[-1] += ("to fetch" if cell.lacking else "to run", images, readable([taken]))
    count = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
    finished = sum(cell.finished is not None for cell in cells)
    lines = [align(rows, gap=2, num_left=5), "", f"{count}, {finished} of them finished"]
    first, preparing = made_first(cells, seconds)
    lines += first
    if times:
        known = " and by ".join(dict.fromkeys(filter(None, known_by)))
        total = f"about {readable([*times, *preparing])} on {device}, by {known}"
        lines.append(total if known else "how long is known once all of it is here")
    return "\n".join(lines)


def name_of(cell: Planned) -> str:
    """Return the method's name, with its swept knobs."""
    knobs = [part for part in cell.swept.split(" ") if part.startswith("method.")]
    return " ".join([cell.method.name, *knobs])


def made_first(cells: Sequence[Planned], seconds: Seconds) -> tuple[list[str], list[float | None]]:
    """Return what is made before the cells that need it, once, and the seconds of it."""
    lines, times = [], []
    if lacking := {state.need: state for cell in cells for state in cell.lacking}:
        missing = sum(state.missing_bytes for state in lacking.values())
        lines.append(
            f"first, to be fetched: {len(lacking)} things, about {hub.amount(missing)}: "
            f"{suggested.command('tsv-fetch')}"
        )
    if pixels := {path: size for cell in cells for path, size in cell.pixels.items()}:
        tasks = {path.parent.parent.name.rpartition("-")[0] for path in pixels}
        lines.append(
            f"first, images of {len(tasks)} tasks to be drawn or decoded: at most "
            f"{hub.amount(sum(pixels.values()))} in {cells[0].config.paths.data}"
        )
    trainings = {path: cell for cell in cells for path in cell.trainings}
    if trainings:
        times = [seconds.training(cell, path) for path, cell in trainings.items()]
        names = [path.stem.rpartition("-")[0] for path in trainings]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        lines.append(
            f"first, checkpoints to be fine-tuned: {len(trainings)} ({shown}), about "
            f"{readable(times)}"
        )
    here = {(c.backbone, c.suite, c.config.seed) for c in cells if c.method.name == "individual"}
    asking = [c for c in cells if c.asks_individual]
    if [c for c in asking if (c.backbone, c.suite, c.config.seed) not in here]:
        command = suggested.command("tsv-bench", "method=individual")
        lines.append(f"first, accuracies of the tasks' own models: {command}")
    return lines, times
