"""tsv-pretrain: pretrain the embedded backbone."""

from omegaconf import DictConfig

from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_whole

NUMBERS = {"num_threads": "the number of CPU threads", "num_images": "the images of every task"}


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_whole("seed", config.seed, "what all is drawn from", 0)
    for key, meaning in NUMBERS.items():
        check_whole(key, config[key], meaning, 1)


@command("pretrain", check)
def main(config: DictConfig) -> None:
    """Check the settings, then train the backbone."""
    check(config)

    from tsv_bench.cli.work.pretrain import pretrain

    pretrain(config)


if __name__ == "__main__":
    main()
