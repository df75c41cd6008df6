"""The extras that bring launchers and sweepers, which are plugins of Hydra."""

from collections.abc import Collection

import yaml

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.wording.spelling import nearest

# Options of Hydra's groups -> the extra that brings their plugin.
EXTRAS = {
    "hydra/launcher": {
        "joblib": "joblib",
        "ray": "ray",
        "submitit_local": "slurm",
        "submitit_slurm": "slurm",
    },
    "hydra/sweeper": {"optuna": "optuna"},
}


def check_option(group: str, name: str, known: Collection[str]) -> None:
    """Check that one of Hydra's groups has an option; ``known`` are those that Hydra has found.

    Raises ValueError that says what to install if a plugin is missing, or what there is.
    """
    brought = EXTRAS.get(group, {})
    plugin = plugin_of(group, name)
    if plugin in brought and plugin not in known:
        raise ValueError(
            f"{group}={name} needs a plugin of Hydra, {plugin}, which is not installed. Install it "
            f"with: pip install 'tsv_bench[{brought[plugin]}]'"
        )
    if name not in known:
        names = sorted({*known, *brought})
        raise ValueError(
            f"unknown {group} {name!r}{nearest(name, names)} There are: {', '.join(names)}."
        )


def plugin_of(group: str, name: str) -> str:
    """Return the option that a packaged one adds settings to, or the option itself."""
    path = CONF / group / f"{name}.yaml"
    if not path.exists():
        return name
    return yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"][0]
