"""The checkpoint files that a command line names."""

from omegaconf import DictConfig

from tsv_bench.cli.launch import plain


def checkpoint_paths(config: DictConfig, example: str) -> dict[str, str]:
    """Task -> path, of ``finetuned``; ValueError unless it, pretrained and output are named.

    ``example`` is a command that would do.
    """
    for key in ("pretrained", "finetuned", "output"):
        if config[key] is None:
            raise ValueError(f"{key}= is missing. As in: {example}")
        if key != "finetuned" and not isinstance(config[key], str):
            raise ValueError(
                f"{key}={config[key]!r} is not a path. A name that is a number needs quotes: "
                f"{key}=\"'3'\"."
            )
    finetuned = plain(config.finetuned) if isinstance(config.finetuned, DictConfig) else None
    if not finetuned or not all(isinstance(path, str) for path in finetuned.values()):
        raise ValueError(
            f"finetuned={config.finetuned!r} does not name the tasks' checkpoints. As in: "
            f"finetuned='{{cars: cars.pt, dtd: dtd.pt}}'"
        )
    return {str(task): path for task, path in finetuned.items()}
