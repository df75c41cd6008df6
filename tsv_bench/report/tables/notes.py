"""Notes below a table: what its rows do not have in common."""

from tsv_bench.report.tables.row import Row


def _note_differences(rows: list[Row], notes: list[str]) -> None:
    """Rows of one table are to have the same seeds and, seed by seed, the same checkpoints."""
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


def _note_evaluation(rows: list[Row], notes: list[str]) -> None:
    """Rows of one table are to be evaluated in one precision, and normalized alike."""
    # Runs that name no precision are of a time when there was only float32.
    precisions = [[r.settings.get("evaluation", {}).get("precision", "float32") for r in row.runs]
                  for row in rows]  # fmt: skip
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


def _note_variants(rows: list[Row], notes: list[str]) -> None:
    """What deviates from the default in a task; which rows, where not all do."""
    labels: dict[tuple[str, str], list[str]] = {}  # (task, what) -> rows
    for row in rows:
        found = {
            (task, what)
            for run in row.runs
            for task, what in run.variants.items()
            if what and task in run.tasks
        }
        for key in sorted(found):
            labels.setdefault(key, []).append(row.label)
    for (task, what), having in labels.items():
        where = "" if len(having) == len(rows) else f" (in {', '.join(having)} only)"
        notes.append(f"{rows[0].runs[0].tasks[task]}: {what}{where}.")
