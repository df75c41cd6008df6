"""What a Run says of unseen tasks and of corrupted images."""

from dataclasses import dataclass

from tsv_bench.scores import Score


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """How a method did on tasks of the suite that it did not merge."""

    tasks: dict[str, str]  # task -> label
    test: dict[str, Score]
    absolute: float  # mean over these tasks of test accuracy, in [0, 1]
    normalized: float  # mean over these tasks of test accuracy / normalizer
    normalizer: dict[str, float]  # task -> test accuracy of its own fine-tuned model
    checkpoints: dict[str, dict[str, str]]  # these models: task -> {"sha256", "generation"}


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """How a method did on corrupted test images of the tasks that it merged."""

    severity: int  # 1 to 5
    test: dict[str, dict[str, Score]]  # corruption -> task

    @property
    def absolute(self) -> float:
        """The mean accuracy over corruptions and tasks, in [0, 1]."""
        found = [score.accuracy for of in self.test.values() for score in of.values()]
        return sum(found) / len(found)

    @staticmethod
    def key(corruption: str, task: str) -> str:
        """Return the name of the per-image correctness; no task has a slash in its own."""
        return f"{corruption}/{task}"
