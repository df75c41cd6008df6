"""tsv-merge by every method of conf/method/, on plain files, with the knobs of its yaml."""

import pytest
import torch
from made_up.merges import TASKS, finetuned, pretrained, write_checkpoints
from stand_ins.configurations import composed

from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.overrides import options
from tsv_bench.cli.merge import chosen_alpha
from tsv_bench.merging import merge_files
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.served import form_by_trial
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.task_vector import TaskVector, apply


@pytest.mark.parametrize("name", options("method"))
def test_the_file_is_pretrained_plus_alpha_times_what_is_served(name, tmp_path):
    write_checkpoints(tmp_path)
    method = make_method(composed("merge", f"method={name}")).by_default()
    one, alpha = form_by_trial(method.serve, TASKS) is Shared, chosen_alpha(None, method)
    done = merge_files.merge(
        method.serve, tmp_path / "base.safetensors",
        {task: tmp_path / f"{task}.safetensors" for task in TASKS},
        tmp_path / ("out.safetensors" if one else "out"), alpha=alpha, progress=False,
    )  # fmt: skip
    assert len(done.outputs) == (1 if one else len(TASKS))
    base = pretrained()
    vectors = {task: TaskVector(base, finetuned(seed)) for seed, task in enumerate(TASKS)}
    served = method.serve(vectors)
    for task, path in zip(TASKS, done.outputs, strict=False):
        written = dict(open_state_dict(path))
        expected = apply(base, dict(served[task].items()), alpha)
        assert set(written) == set(base)
        for layer, tensor in expected.items():
            assert written[layer].dtype == tensor.dtype
            # Sums are rounded in another order at most.
            torch.testing.assert_close(written[layer], tensor, rtol=1e-6, atol=1e-6)
