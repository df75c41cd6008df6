"""Notes below a table on what its rows do not have in common, and what rules a comparison out."""

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.row import Row


def check_same_images(first: Run, second: Run) -> None:
    """Check that two Runs were tested on the same images.

    Raises ValueError naming the first task where they were not.
    """
    for task in first.tasks | second.tasks:
        found = [
            (run.data.get(task), run.test[task].total if task in run.test else 0)
            for run in (first, second)
        ]
        if found[0] != found[1]:
            (data_1, total_1), (data_2, total_2) = found
            raise ValueError(
                f"{first.label} and {second.label} cannot be compared on task {task!r}: "
                f"{total_1} images of data {data_1} against {total_2} of {data_2}. "
                f"Run both on the same data."
            )


def note_differences(rows: list[Row], notes: list[str]) -> None:
    """Add a note if rows differ in their seeds, or in the checkpoints of a seed."""
    if len({row.seeds for row in rows}) > 1:
        parts = [f"{row.label} {', '.join(map(str, row.seeds))}" for row in rows]
        notes.append(f"not all rows have the same seeds: {'; '.join(parts)}.")
    first: dict[tuple[int, str], tuple[str, object]] = {}
    for row in rows:
        for run in row.runs:
            for task, checkpoint in run.checkpoints.items():
                owner, seen = first.setdefault(
                    (run.seed, task), (row.label, checkpoint.get("sha256"))
                )
                if seen != checkpoint.get("sha256"):
                    notes.append(
                        f"{row.label} and {owner}, seed {run.seed}, were made from different "
                        f"checkpoints, first {task!r}: do not compare them."
                    )
                    break


def note_evaluation(rows: list[Row], notes: list[str]) -> None:
    """Add a note if rows were evaluated in different precisions or normalized differently."""
    precisions = [[precision_of(run) for run in row.runs] for row in rows]
    sources = [[run.normalizer_source.partition(":")[0] for run in row.runs] for row in rows]
    for text, kinds in (
        ("evaluated in the same precision", precisions),
        ("normalized by the same accuracies", sources),
    ):
        having = {
            kind: [row.label for row, own in zip(rows, kinds, strict=True) if kind in own]
            for kind in dict.fromkeys(kind for own in kinds for kind in own)
        }
        if len(having) > 1:
            parts = [f"{', '.join(labels)} ({kind})" for kind, labels in having.items()]
            notes.append(f"not all rows were {text}: {'; '.join(parts)}.")


def precision_of(run: Run) -> str:
    """Return the precision that a Run was evaluated in.

    Runs that do not name it are older than the choice, and were evaluated in float32.
    """
    return run.settings.get("evaluation", {}).get("precision", "float32")


def note_variants(rows: list[Row], notes: list[str]) -> None:
    """Add a note for each task that was not evaluated by default, naming the rows if not all."""
    labels: dict[tuple[str, str], list[str]] = {}  # (task, what) -> rows
    for row in rows:
        found = {
            (task, what)
            for run in row.runs
            for task, what in run.variants.items()
            if what and task in _labels(run)
        }
        for key in sorted(found):
            labels.setdefault(key, []).append(row.label)
    for (task, what), having in labels.items():
        where = "" if len(having) == len(rows) else f" (in {', '.join(having)} only)"
        notes.append(f"{_labels(rows[0].runs[0])[task]}: {what}{where}.")


def _labels(run: Run) -> dict[str, str]:
    """Return task -> label of the tasks that were merged and of the unseen ones."""
    return run.tasks | (run.unseen.tasks if run.unseen else {})


def note_routers(rows: list[Row], notes: list[str]) -> None:
    """Add a note for each row with a router: how often it is right, and what that costs."""
    for row in rows:
        if found := row.router("found"):
            mean, oracle, head = (
                100 * sum(scores.values()) / len(scores)
                for scores in (found, row.router("oracle"), row.router("head_found"))
            )
            worst = min(found, key=found.__getitem__)
            notes.append(
                f"{row.label}: its router finds the task of {mean:.1f}% of the images (least of "
                f"{row.runs[0].tasks[worst]}, {100 * found[worst]:.1f}%). With every image sent to "
                f"its own task's expert {oracle:.1f}% are right; with the head of the task found, "
                f"too, {head:.1f}%."
            )
