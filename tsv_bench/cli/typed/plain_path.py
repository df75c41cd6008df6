"""The folder that tsv-task takes as a plain argument; Hydra takes none."""

from tsv_bench.cli.typed.quoting import quote

VALUED = {"--cfg", "-c", "--config-dir", "-cd", "--package", "-p", "--info", "-i"}  # Hydra's


def with_folder(arguments: list[str]) -> list[str]:
    """Return the arguments with the plain one, a path, as ``folder=``."""
    before = [None, *arguments]
    return [
        f"folder={quote(argument)}"
        if "=" not in argument and not argument.startswith("-") and previous not in VALUED
        else argument
        for previous, argument in zip(before, arguments, strict=False)
    ]
