"""What asks merged models in tsv-merge: a command of the user's own, or nothing."""

from omegaconf import DictConfig

from tsv_bench import methods
from tsv_bench.merging.scoring import ScoringCommand
from tsv_bench.methods.method import Method

ASKED = (methods.merge3,)  # methods that take an `Examiner` as their bench


def scoring_of(config: DictConfig, method: Method) -> ScoringCommand | None:
    """Return the command of ``score``, for a method that searches.

    Raises ValueError for one that learns on images, for a search without a command, and for a
    command that has no effect or is none.
    """
    learns = method.needs is not None and method.needs.learns
    asked = learns and getattr(method.serve, "func", None) in ASKED
    if learns and not asked:
        raise ValueError(
            f"{method.name} learns on images of the tasks, which tsv-merge has not. Run it with: "
            f"tsv-bench method={method.name}"
        )
    if config.score is None:
        if asked:
            raise ValueError(
                f"{method.name} searches, and asks every candidate: give the command that does, as "
                f"in score='my_eval {{model}}', or run tsv-bench method={method.name} on images."
            )
        return None
    if not asked:
        raise ValueError(f"score= has no effect on method={method.name}: it searches nothing.")
    return ScoringCommand(
        command=str(config.score), seconds=config.score_seconds, seed=config.score_seed
    )
