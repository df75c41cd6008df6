"""experiment=rank_sweep: eleven ranks of TSV-M and TSV-C from one decomposition of each layer."""

import pytest
from hydra import compose, initialize_config_dir
from stand_ins.commands import SMALL, TASKS, begin_from, tsv

from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.cli.config import tasks
from tsv_bench.cli.config.overrides import CONF
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile

FRACTIONS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5]
FEW, SMALLEST = "method.rank_fraction=0.5,0.02", "method.rank_fraction=0.02"


def swept():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", ["experiment=rank_sweep"], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    return {key: text.split(",") for key, text in config.hydra.sweeper.params.items()}


def test_it_sweeps_the_fractions_of_the_study_the_largest_first():
    """The first job decomposes; what it leaves in the cache has to be enough for the others."""
    assert swept()["method"] == ["tsv_compress", "tsv_merge"]
    fractions = [float(text) for text in swept()["method.rank_fraction"]]
    assert sorted(fractions) == FRACTIONS
    assert fractions[0] == max(fractions)


def test_the_small_suites_are_beginnings_of_the_larger_ones():
    mini14 = tasks.named_tasks("mini14")
    for size in (2, 4, 8):
        assert tasks.named_tasks(f"mini{size}") == mini14[:size]


@pytest.fixture(scope="module")
def sweeps(fine_tuned, tmp_path_factory):
    """(folder of a sweep over two fractions and of Runs without a cache, what the cache did)."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("sweep"))
    kept = []
    arguments = ["experiment=rank_sweep", FEW, "method.alphas=[1.0]", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        keep = FactorCache.keep
        patch.setattr(
            FactorCache,
            "keep",
            lambda self, pair, name, kind, triplets: (
                kept.append((pair, name, kind)),
                keep(self, pair, name, kind, triplets),
            ),
        )
        result = tsv(folder, "bench", *arguments)
        assert result.code == 0, result.err
        for method in ("tsv_compress", "tsv_merge"):
            one = [f"method={method}", SMALLEST, "method.alphas=[1.0]", *SMALL]
            without = tsv(folder, "bench", *one, "cache.folder=null", "paths.runs=without")
            assert without.code == 0, without.err
    return folder, kept


def by_cell(folder):
    """(method, fraction) -> (Run, task -> bool)."""
    return {
        (run.method, run.knobs["rank_fraction"]): (run, load_correct(path))
        for path, run in find_runs(folder)
    }


@pytest.mark.slow
def test_every_layer_of_every_task_is_decomposed_once_for_all(sweeps):
    folder, kept = sweeps
    assert len(by_cell(folder / "runs")) == 4
    assert kept and len(kept) == len(set(kept))
    entries = [*(folder / "cache" / "tsv-bench" / "factors").rglob("*.safetensors")]
    assert len(entries) == len(kept) and len({path.parent for path in entries}) == len(TASKS)
    for path in entries:
        specs = SafetensorsFile(path).specs
        rank, full = specs["0.s"].shape[0], min(specs["0.u"].shape[1], specs["0.v"].shape[1])
        assert rank >= full // 2, "of the largest fraction"


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_cache(sweeps):
    """The same images are right but for those where rounding decides."""
    folder, _ = sweeps
    cached, direct = by_cell(folder / "runs"), by_cell(folder / "without")
    assert set(direct) == {cell for cell in cached if cell[1] == 0.02} and len(direct) == 2
    for cell, (other, expected) in direct.items():
        run, correct = cached[cell]
        assert run.fingerprint == other.fingerprint
        for task in TASKS:
            assert (correct[task] != expected[task]).sum() <= 1, (cell, task)
