"""What asks merged models in tsv-merge: a command of the user's own, or nothing."""

from omegaconf import DictConfig

from tsv_bench.cli.config.method_yaml import Described
from tsv_bench.wording import suggested

ASKED = ("tsv_bench.methods.merge3",)  # methods that take an `Examiner` as their bench


def check_scoring(config: DictConfig, method: Described) -> None:
    """Check that ``score`` is there for a method that searches, and for no other.

    Raises ValueError if not, and for a method that learns on images.
    """
    learns = method.needs is not None and method.needs.learns
    asked = learns and method.target in ASKED
    if learns and not asked:
        raise ValueError(
            f"{method.name} learns on images of the tasks, which tsv-merge has not. Run it with: "
            + suggested.command("tsv-bench", f"method={method.name}")
        )
    if asked and config.score is None:
        raise ValueError(
            f"{method.name} searches, and asks every candidate: give the command that does, as "
            f"in score='my_eval {{model}}', or run it on images: "
            + suggested.command("tsv-bench", f"method={method.name}")
        )
    if config.score is not None and not asked:
        raise ValueError(f"score= has no effect on method={method.name}: it searches nothing.")
