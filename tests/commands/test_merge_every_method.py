"""tsv-merge by every method of conf/method/, on plain files, with the knobs of its yaml."""

import pytest
import torch
from made_up.merges import TASKS, finetuned, pretrained, write_checkpoints
from made_up.statistics import made_up_fisher, made_up_grams
from omegaconf import OmegaConf
from stand_ins.commands import tsv

from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.overrides import options
from tsv_bench.cli.config.search_path import CONF
from tsv_bench.files import sha256
from tsv_bench.merging import merge_files
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.served import form_by_trial
from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.task_vector import TaskVector, apply

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def observed(method, folder):
    """Kind -> task -> a file of statistics of its checkpoint, for what the method needs."""
    kinds = method.needs.statistics if method.needs else ()
    shapes = {name: tuple(t.shape) for name, t in pretrained().items() if t.is_floating_point()}
    make = {"inputs": made_up_grams, "fisher": made_up_fisher}
    paths = {kind: {task: folder / f"{task}.{kind}.safetensors" for task in TASKS}
             for kind in kinds}  # fmt: skip
    for kind in kinds:
        for task, layers in make[kind](shapes, TASKS).items():
            about = {"checkpoint": sha256(folder / f"{task}.safetensors")}
            how = {name: layers.gathered(name) for name in layers}
            shapes_of = {name: layers.shape(name) for name in layers}
            path = paths[kind][task]
            write_statistics(path, kind, how, shapes_of, layers.__getitem__, about)
    return paths


def learns(name):
    """Whether a method runs the network, which tsv-merge has not: it refuses it."""
    return "bench" in OmegaConf.load(CONF / "method" / f"{name}.yaml").get("needs", ())


LEARNING = [name for name in options("method") if learns(name)]
ROUTED = ["esm_plus_plus"]  # by statistics, and there are no files of a router


@pytest.mark.parametrize("name", sorted({*options("method")} - {*LEARNING, *ROUTED}))
def test_the_file_is_pretrained_plus_alpha_times_what_is_served(name, tmp_path):
    write_checkpoints(tmp_path)
    yaml = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    method = make_method(OmegaConf.create({"method": yaml})).by_default()
    statistics = observed(method, tmp_path)
    opened = {kind: {task: StatisticsFile(path) for task, path in paths.items()}
              for kind, paths in statistics.items()}  # fmt: skip
    given = method.given(**opened)
    one, alpha = form_by_trial(given.serve, TASKS) is Shared, 0.7
    done = merge_files.merge(
        method.serve, tmp_path / "base.safetensors",
        {task: tmp_path / f"{task}.safetensors" for task in TASKS},
        tmp_path / ("out.safetensors" if one else "out"), alpha=alpha, progress=False,
        statistics=statistics,
    )  # fmt: skip
    assert len(done.outputs) == (1 if one else len(TASKS))
    base = pretrained()
    vectors = {task: TaskVector(base, finetuned(seed)) for seed, task in enumerate(TASKS)}
    served = given.serve(vectors)
    for task, path in zip(TASKS, done.outputs, strict=False):
        written = dict(open_state_dict(path))
        expected = apply(base, dict(served[task].items()), alpha)
        assert set(written) == set(base)
        for layer, tensor in expected.items():
            assert written[layer].dtype == tensor.dtype
            # Sums are rounded in another order at most.
            torch.testing.assert_close(written[layer], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LEARNING)
def test_a_method_that_learns_is_refused_and_named_to_the_command_that_runs_it(name, tmp_path):
    write_checkpoints(tmp_path)
    done = tsv(
        tmp_path, "merge", f"method={name}", "pretrained=base.safetensors",
        f"finetuned={{{TASKS[0]}: {TASKS[0]}.safetensors}}", "output=out.safetensors",
    )  # fmt: skip
    assert done.code == 1 and not (tmp_path / "out.safetensors").exists()
    expected = f"which tsv-merge has not. Run it with: tsv-bench method={name}"
    if name == "merge3":  # another command can be asked
        expected = "as in score='my_eval {model}', or run it on images: tsv-bench method=merge3"
    assert expected in done.err
