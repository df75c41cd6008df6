"""tsv-pretrain: pretrain the embedded backbone."""

from omegaconf import DictConfig, ListConfig

from tsv_bench.cli.config.overrides import as_typed
from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_positive, check_range, check_whole

NUMBERS = {"num_threads": "the number of CPU threads", "num_images": "the images of every task"}


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_whole("seed", config.seed, "what all is drawn from", 0)
    for key, meaning in NUMBERS.items():
        check_whole(key, config[key], meaning, 1)
    for key in ("steps", "batch_size"):
        check_whole(f"recipe.{key}", config.recipe[key], "a number of steps or images", 1)
    for key, share in {"augmented": config.augmented, **_shares(config)}.items():
        check_range(key, share, 0, 1, "a share of images")
    check_positive("max_scale", config.max_scale, "the largest exp(logit_scale)")
    if not isinstance(config.output, str):
        raise ValueError(
            f"output={as_typed(config.output)} is no path, as in output=my.safetensors."
        )
    for kind in ("captions", "generic"):
        for task, texts in config[kind].items():
            if not isinstance(texts, ListConfig) or not texts:
                raise ValueError(f"{kind}.{task}={as_typed(texts)} is no list of captions.")


def _shares(config: DictConfig) -> dict[str, object]:
    return {f"shares.{name}": share for name, share in config.shares.items()}


@command("pretrain", check)
def main(config: DictConfig) -> None:
    """Check the settings, then train the backbone."""
    check(config)

    from tsv_bench.cli.work.pretrain import pretrain

    pretrain(config)


if __name__ == "__main__":
    main()
