"""experiment=search_rank: Optuna by validation, with the same trials each time."""

from importlib import metadata

import pytest
import yaml
from stand_ins.commands import SMALL, begin_from, tsv

from tsv_bench.benchmark.runs import find_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not [*metadata.distributions(name="hydra-optuna-sweeper")], reason="needs tsv_bench[optuna]"
    ),
]
LINE = ["experiment=search_rank", "hydra.sweeper.n_trials=2", "method.alphas=[0.5,1.0]",
        "cache.folder=null", *SMALL]  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_same_command_goes_on_with_the_same_trials(fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    for there in (0, 2):
        result = tsv(folder, "bench", *LINE)
        assert result.code == 0, result.err
        assert result.err.count("already there") == there
    runs = [run for _, run in find_runs(folder / "runs")]
    assert len({run.knobs["rank_fraction"] for run in runs}) == 2
    for sweep in (folder / "runs" / "sweeps").iterdir():
        found = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
        best = max(runs, key=lambda run: run.validation)
        assert found["best_value"] == best.validation
