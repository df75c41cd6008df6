"""The method of docs/own_method.md: its code, yaml and commands, run as they stand there."""

import copy
import re
import shlex
import sys
import textwrap

import pytest
import stand_ins.own_methods
import torch
from made_up.merges import pretrained, write_checkpoints
from safetensors.torch import load_file
from stand_ins.commands import SMALL, begin_from, checkpoints, runs, tsv

from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.overrides import checked, composed
from tsv_bench.cli.config.search_path import misplaced, options
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.models import zero_shot_heads
from tsv_bench.models.accuracy import correct_images
from tsv_bench.observation.statistics_file import StatisticsFile

PAGES_RUN = shlex.split(stand_ins.own_methods.command("tsv-bench"))
ALONE = ["--config-dir", "my_conf", "method=my_method", *SMALL]


def console_script(folder, command, *arguments):
    """What a command does whose path is that of a console script: without the current folder."""
    assert not {"", ".", str(folder)} & set(sys.path)
    done = tsv(folder, command, *arguments)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def compared(fine_tuned, tmp_path_factory):
    """(folder, what the page's comparison printed on two small tasks)."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("own"))
    stand_ins.own_methods.write(folder)
    return folder, console_script(folder, "bench", *PAGES_RUN, *SMALL).out


@pytest.fixture
def forgotten(monkeypatch):
    """What a command in this process imports from its folder, and how it finds it, is forgotten."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    yield
    sys.modules.pop("my_method", None)
    sys.modules.pop("by_inputs", None)
    sys.modules.pop("by_weights", None)


def merged_directly(states, base, power):
    """The page's rule called on each stacked matrix, the mean of what is none: no engine."""
    namespace = {}
    exec(stand_ins.own_methods.CODE, namespace)
    merged = {}
    for name in base:
        deltas = torch.stack([state[name] - base[name] for state in states])
        is_matrix = deltas.ndim == 3 and name != "text_projection"
        rule = namespace["levelled_sum"]
        merged[name] = rule(deltas, power) if is_matrix else deltas.mean(dim=0)
    return merged


def test_table_has_the_numbers_of_the_rule_called_directly(compared):
    folder, printed = compared
    config = composed("bench", checked("bench", SMALL))
    config.paths.data = str(folder / "data")
    backbone, tasks = objects.make_backbone(config), make_tasks(config.suite.tasks)
    load, base = objects.make_loader(config, backbone), backbone.pretrained
    states = [load_file(path) for path in checkpoints(folder)]
    assert len(states) == len(tasks) == 2
    merged = merged_directly(states, base, 0.5)

    run = runs(folder)["my_method"]
    assert run.knobs == {"power": 0.5} and run.label == "My method"
    assert [point["alpha"] for point in run.alpha_curve] == [0.2, 0.4, 0.6, 0.8, 1.0]
    before = backbone.visual.state_dict()
    served = copy.deepcopy(backbone.visual)
    served.load_state_dict({n: before[n] + run.alpha * merged[n] for n in before})
    heads = zero_shot_heads(backbone, tasks, folder / "heads")
    [(path, _)] = find_runs(folder / "runs", method="my_method")
    correct = load_correct(path)
    accuracies = []
    for name, task in tasks.items():
        hits = correct_images(served, heads[name], load(task, "test"), "cpu")
        assert hits.tolist() == correct[name].tolist()
        accuracies.append(100 * hits.mean())
    row = next(line for line in printed.splitlines() if line.startswith("My method"))
    cells = re.findall(r"\d+\.\d+", row)
    assert cells[0] == f"{sum(accuracies) / 2:.1f}"
    assert cells[-2:] == [f"{accuracy:.1f}" for accuracy in accuracies]
    for label in ("Weight average", "TSV-M"):
        assert any(line.startswith(label) for line in printed.splitlines())


def test_an_edited_method_is_evaluated_again(compared, forgotten):
    folder, _ = compared
    again = tsv(folder, "bench", *ALONE)
    assert again.code == 0 and "My method: already there" in again.err
    source = folder / stand_ins.own_methods.FILE
    source.write_text(stand_ins.own_methods.CODE.replace(".sum(dim=0)", ".mean(dim=0)"))
    edited = tsv(folder, "bench", *ALONE)
    assert edited.code == 0 and "already there" not in edited.err
    source.write_text(stand_ins.own_methods.CODE)
    fingerprints = {run.fingerprint for _, run in find_runs(folder / "runs", method="my_method")}
    assert len(fingerprints) == 2


def test_checkpoint_files_are_merged_by_it(tmp_path):
    states = list(write_checkpoints(stand_ins.own_methods.write(tmp_path)).values())
    line = stand_ins.own_methods.command("tsv-merge")
    assert "pretrained=P " in line and "finetuned='{a: A, b: B}'" in line and "output=OUT" in line
    for name, path in {"P": "base", "A": "a", "B": "b", "OUT": "out"}.items():
        line = re.sub(rf"\b{name}\b", f"{path}.safetensors", line)
    done = console_script(tmp_path, "merge", *shlex.split(line), "cache.folder=null")
    assert "My method of 2 tasks -> out.safetensors" in done.err
    base = {n: t for n, t in pretrained().items() if t.is_floating_point()}
    merged = merged_directly(states, base, 0.5)
    written = load_file(tmp_path / "out.safetensors")
    for name in base:
        # float32, sums of two: rounding is about 1e-7 of entries of about 1.
        torch.testing.assert_close(written[name], base[name] + merged[name], rtol=0, atol=1e-6)


def test_one_that_asks_for_them_gets_names_and_pretrained_weights(compared, forgotten, tmp_path):
    folder, _ = compared
    code = """
        from tsv_bench.task_vectors import merge_layers

        def by_weights(task_vectors, *, pretrained, share):
            def rule(deltas, name):
                assert pretrained[name].shape == deltas.shape[1:]
                return share * deltas.mean(dim=0) - (1 - share) * pretrained[name]
            return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule))
    """
    yaml = "name: by_weights\nlabel: By weights\nalphas: [1.0]\nshare: 1\nneeds: [pretrained]\n"
    yaml += "serve: {_target_: by_weights.by_weights, _partial_: true, share: '${..share}'}\n"
    for place in (folder, tmp_path):
        stand_ins.own_methods.write(place)
        (place / "by_weights.py").write_text(textwrap.dedent(code))
        (place / "my_conf/method/by_weights.yaml").write_text(yaml)
    own = ["--config-dir", "my_conf", "method=by_weights"]
    done = tsv(folder, "bench", *own, *SMALL)
    assert done.code == 0, done.err
    paths = {run.method: path for path, run in find_runs(folder / "runs")}
    found, same = (load_correct(paths[name]) for name in ("by_weights", "weight_average"))
    assert all((found[task] == same[task]).all() for task in found)

    write_checkpoints(tmp_path)
    files = ["pretrained=base.safetensors", "finetuned={a: a.safetensors, b: b.safetensors}"]
    done = tsv(tmp_path, "merge", *own, "method.share=0", *files, "output=out.safetensors")
    assert done.code == 0, done.err
    base, written = pretrained(), load_file(tmp_path / "out.safetensors")
    zero = {name for name in base if not written[name].any()}
    assert zero == {"visual.proj", "blocks.0.in_proj_weight", "blocks.0.c_proj.weight"}


def test_one_that_looks_at_data_gets_statistics(compared, forgotten):
    folder, _ = compared
    stand_ins.own_methods.write_one_that_sees(folder)
    line = re.findall(r"^    tsv-bench (.*)$", stand_ins.own_methods.SEEING, re.M)
    done = tsv(folder, "bench", *shlex.split(line[0]), "method.images=8", *SMALL)
    assert done.code == 0, done.err
    assert "8 unlabelled val" in done.out
    [(_, run)] = find_runs(folder / "runs", method="by_inputs")
    vectors, inputs = {}, {}
    [base] = folder.glob("checkpoints/**/pretrained*.safetensors")
    for path in checkpoints(folder):
        task = path.name.split("-")[0]
        state, pretrained = load_file(path), load_file(base)
        vectors[task] = {name: state[name] - pretrained[name] for name in state}
        [file] = (folder / "data/statistics").rglob(f"{task}-*.inputs.safetensors")
        inputs[task] = StatisticsFile(file)
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    weights = {task: inputs[task][name].diagonal() for task in vectors}
    expected = sum(weights[t] * vectors[t][name] for t in vectors) / sum(weights.values())
    namespace = {}
    exec((folder / "by_inputs.py").read_text(), namespace)
    served = namespace["by_inputs"](vectors, inputs=inputs)
    torch.testing.assert_close(served["signs"][name], expected)
    assert run.seen.images == 8 and run.task_known is False


def test_a_yaml_that_another_process_is_writing_is_no_choice(tmp_path):
    half = tmp_path / "method" / ".mine.yaml.0123abcd.tmp" / "mine.yaml"
    half.parent.mkdir(parents=True)
    half.touch()
    assert options("method", [tmp_path]) == options("method")
    assert not misplaced("method", "mine", [tmp_path])
