"""Results that can hardly be meant: swapped, damaged or repeated checkpoints show themselves so."""

from collections.abc import Sequence

from tsv_bench.benchmark.runs import Run
from tsv_bench.files.content import repeated

MOST = 1.10  # normalized accuracy; the most of all Runs in results/ is 1.00


def doubts(run: Run) -> list[str]:
    """Return a sentence for each thing in a Run that can hardly be meant."""
    found = []
    if run.normalized > MOST:
        found.append(
            f"{run.label} has {run.normalized:.0%} of the accuracy that each task is normalized "
            f"by. Are checkpoints swapped or damaged?"
        )
    hashes = {task: run.checkpoints.get(task, {}).get("sha256") for task in run.tasks}
    for tasks in repeated({task: sha256 for task, sha256 in hashes.items() if sha256}):
        found.append(f"{' and '.join(run.tasks[t] for t in tasks)} have the same checkpoint.")
    return found


def worse_than_pretrained(individual: Run, zero_shot: Run) -> list[str]:
    """Return a sentence for each task whose own model is worse than the pretrained one."""
    found = []
    for task, score in individual.test.items():
        before = zero_shot.test.get(task)
        if before and score.accuracy < before.accuracy:
            found.append(
                f"the fine-tuned model of {individual.tasks[task]} is worse on it than the "
                f"pretrained one ({score.accuracy:.1%} against {before.accuracy:.1%}). Is it "
                f"another task's, or damaged?"
            )
    return found


def doubts_of(runs: Sequence[Run]) -> list[str]:
    """Return the doubts of several Runs of one suite, each sentence once."""
    found = [sentence for run in runs for sentence in doubts(run)]
    zero_shot = {run.seed: run for run in runs if run.method == "zero_shot"}
    for run in runs:
        if run.method == "individual" and run.seed in zero_shot:
            found += worse_than_pretrained(run, zero_shot[run.seed])
    return list(dict.fromkeys(found))
