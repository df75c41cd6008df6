"""What is wrong with a method of the user's own is one message, before any work."""

import sys

import pytest
import stand_ins.own_methods
from made_up.merges import merge, write_checkpoints
from stand_ins.commands import tsv
from stand_ins.own_methods import CODE, YAML

from tsv_bench.cli.config.overrides import checked
from tsv_bench.data import cache

ALONE = ["--config-dir", "my_conf", "method=my_method"]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a command in this process imports from its folder, and how it finds it, is forgotten."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(cache, "build_dataset", lambda *args: pytest.fail("went to work"))
    sys.modules.pop("my_method", None)
    yield
    sys.modules.pop("my_method", None)


def changed(text, old, new):
    assert text.count(old) >= 1, old
    return text.replace(old, new)


def refused(folder, *arguments):
    result = tsv(folder, "bench", *(arguments or ALONE), "suite.tasks=[signs,shapes]")
    assert result.code == 1 and "Traceback" not in result.err, result.err
    return result.err


SERVED = "return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule))"
SUM = "** power).sum(dim=0)"
CODE_MISTAKES = [
    (("from functools", "import numpyy\nfrom functools"), "my_method imports numpyy, which is not"),
    (("def my_method(", "def my_method)"), "my_method cannot be imported: SyntaxError: "),
    (("from functools", "1 / 0\nfrom functools"), "cannot be imported: ZeroDivisionError"),
    (("my_method(", "my_metod("), "my_method has no function 'my_method'; did you mean 'my_metod'"),
    (("*, power)", "*, strength)"), "the yaml of my_method passes the knob 'power' to my_method.my_"
     "method, which takes strength"),
    (("*, power)", "*, power, seed)"), "my_method.my_method takes the knob 'seed', which the yaml o"
     "f my_method does not pass on: it needs seed: VALUE, and under serve seed: ${..seed}"),
    ((SERVED, "return merge_layers(task_vectors.values(), rule)"), "my_method serves 'proj', which "
     "is no task of the suite. That is a layer: is it one vector for all tasks?"),
    ((SERVED, "merge_layers(task_vectors.values(), rule)"), "my_method serves a NoneType and not a "
     "mapping of tasks to vectors"),
    ((SERVED, "return {t: task_vectors[t] for t in list(task_vectors)[:1]}"), "my_method serves not"
     "hing to b: a method returns a vector for each of a, b"),
    ((SERVED, "return dict.fromkeys(task_vectors, {'proj': 0})"), "my_method serves a a vector that"
     " lacks 4 of the 5 layers, first 'in_proj_weight'"),
    ((SERVED, "return {t: {**v, 'x': v['bias']} for t, v in task_vectors.items()}"), "1 layers that"
     " its task vector does not have, first 'x'"),
    ((SERVED, "return {t: list(v) for t, v in task_vectors.items()}"), "serves a a list and not a m"
     "apping of layers to tensors"),
    ((SUM, "** power)"), "my_method serves a 'proj' with shape (2, 6, 6); the layer (or the rows"),
    ((SUM, "** power).sum()"), "my_method serves a 'proj' with shape (); the layer (or the rows"),
    ((SUM, "** power).sum(dim=0) > 0"), "'proj' as torch.bool, not as a tensor of floating-point"),
    (("** power", "** power / 0"), "'proj' with NaN or infinity in it. Does the rule divide by"),
    (("    rule = ", "    task_vectors and task_vectors['cars']\n    rule = "), "tried on two small"
     " made-up tasks, before any work: KeyError (my_method.py, line 8): 'cars'"),
    (("    rule = ", "    first = next(iter(task_vectors.values()))\n    rule = "), "tried on no"
     " task vectors, which checks its knobs alone: StopIteration (my_method.py, line 8)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CODE_MISTAKES, ids=lambda x: str(x)[:40])
def test_a_mistake_in_the_code(change, message, tmp_path):
    stand_ins.own_methods.write(tmp_path, code=changed(CODE, *change))
    assert message in refused(tmp_path)


YAML_MISTAKES = [
    (("my_method.my_method", "my_metod.my_method"), "there is no module my_metod: neither in the cu"
     "rrent folder, {folder}, nor installed. Start the command where my_metod.py is, or set PYTHONP"
     "ATH to that folder"),
    (("my_method.my_method", "my_method"), "there is no module my_method: neither"),
    (("my_method.my_method", "my_method.my_method.rule"), "'my_method' is not a package. I"
     "t is module.function."),
    (("alphas:", "alpha:"), "the yaml of my_method has no 'alphas'; a method has name, label"),
    (("  _partial_: true\n", ""), "_target_: module.function and _partial_: true"),
    (("power: 0.5 ", "pwer: 0.5 "), "the yaml of my_method passes on what it does not set: method.s"
     "erve.power is '${..power}'"),
    (("  power: ${..power}\n", ""), "my_method.my_method takes the knob 'power', which the yaml"),
    (("power: 0.5 ", "other: 1\npower: 0.5 "), "the knob 'other' of my_method does not reach"),
    (("power: 0.5 ", "power: 2 "), "power=2 is not in [0, 1]: 0 is the plain sum"),
    (("  power: ${..power}\n", "  o: {power: ${..power}}\n"), "my_method.yaml, line 8, is not YAML"
     ": expected ',' or '}', but got '{'. Between braces"),
    (("serve:\n", "\tserve:\n"), "is not YAML: found character '\\t' that cannot start any token"),
    (("name: my_method", "name: ties"), "calls itself ties, as a packaged one does"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), YAML_MISTAKES, ids=lambda x: str(x)[:40])
def test_a_mistake_in_the_yaml(change, message, tmp_path):
    stand_ins.own_methods.write(tmp_path, yaml=changed(YAML, *change))
    assert message.replace("{folder}", str(tmp_path)) in refused(tmp_path)


OWN = {  # file: its text, how it is chosen, what is said
    "method/empty": ("", "method=empty", "empty.yaml is empty: a yaml of method has lines"),
    "method/list": ("- a", "method=list", "list.yaml is no mapping but ['a']"),
    "method/twice": ("a: 1\na: 2", "method=twice", "line 2, is not YAML: 'a' stands there twice"),
    "method/open": ("a: '${..a'", "method=open", "has a value with ${ that does not end"),
    "method/lost": ("defaults: [x]", "method=lost", "method/lost.yaml names method/x in its defau"),
    "method/top": ("# @package _global_\na: 1", "method=top", "has no line # @package"),
    "task/none": ("", "suite.tasks=[signs,none]", "none.yaml is empty"),
    "task/bare": ("bare: {_target_: tsv_bench.data.Task}", "suite.tasks=[bare]", "source: {folder"),
    "suite/bare": ("name: bare", "suite=bare", "the suite's yaml has no tasks in its defaults"),
    "suite/anonymous": ("defaults: [/task@tasks: [signs]]", "suite=anonymous", "has no name"),
    "suite/names": ("name: names\ntasks: [signs]", "suite=names", "which are names alone"),
    "suite/odd": ("defaults: [task@tasks: [signs]]", "suite=odd", "from the top, as in /task@"),
    "checkpoints/bare": ("folder: x", "checkpoints=bare", "it needs the line _target_: module.Sou"),
    "experiment/bare": ("seed: 1", "experiment=bare", "its first line is # @package _global_"),
    "experiment/tie": (
        "# @package _global_\ndefaults: [override /method: tie]", "experiment=tie",
        "unknown method 'tie'; did you mean 'ties'?",
    ),
    "experiment/relative": (
        "# @package _global_\ndefaults: [override method: ties]", "experiment=relative",
        "named from the top, as in: override /method: ties",
    ),
    "experiment/second": (
        "# @package _global_\ndefaults: [/method: ties]", "experiment=second",
        "in an experiment's defaults by: override /method: ties",
    ),
    "experiment/listed": (
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {method: [ties, magmax]}}}",
        "experiment=listed", "Each in a job of its own is method=ties,magmax",
    ),
    "experiment/params": (
        "# @package _global_\nhydra: {sweeper: {params: [ties]}}", "experiment=params",
        "a list stands where a mapping is expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_yaml_that_describes_nothing(name, tmp_path):
    text, chosen, message = OWN[name]
    path = tmp_path / "my_conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    more = [] if chosen.startswith("suite") else ["suite.tasks=[signs,shapes]"]
    result = tsv(tmp_path, "bench", "--config-dir", "my_conf", chosen, *more)
    assert result.code == 1 and message in result.err, result.err
    assert "Traceback" not in result.err and "search path" not in result.err


def test_its_folders_and_its_names(tmp_path, monkeypatch):
    stand_ins.own_methods.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_conf" / "methods").mkdir()
    (tmp_path / "my_conf" / "methods" / "lost.yaml").write_text(YAML)
    (tmp_path / "my_conf" / "method" / "other.yml").write_text(YAML)
    own = "--config-dir", "my_conf"
    for arguments, message in {
        (*own, "method=my_methd"): "unknown method 'my_methd'; did you mean 'my_method'?",
        ("method=my_method",): "; your own in a folder that --config-dir names.",
        (*own, "method=my_method", "method.powr=1"): "unknown key 'powr' in method; did you mean "
        "'power'?",
        (*own, "metod=my_method"): "unknown key 'metod'; did you mean 'method'?",
        (*own, "method=my_method", "suite.tasks=[sings]"): "did you mean 'signs'?",
        (*own, "-m", "method=ties,my_method", "method.power=1"): "unknown key 'power' in method wit"
        "h method=ties",
        (*own, "method=lost"): "my_conf/methods/lost.yaml is not it: it would be my_conf/method/los"
        "t.yaml",
        (*own, "method=other"): "my_conf/method/other.yml is not it: it would be my_conf/method/oth"
        "er.yaml",
        ("--config-dir=my_cnf", "method=my_method"): "there is no folder my_cnf for configuration o"
        "f your own: my_conf/method/my_method.yaml is found by: --config-dir my_conf",
        ("--config-dir", "my_conf/method", "method=my_method"): "my_conf/method is a folder of one "
        "group, method; name the one that it lies in: --config-dir my_conf",
        ("hydra.searchpath=[my_cnf]", "method=my_method"): "there is no folder my_cnf",
        ("hydra.searchpath=[file://my_conf]", "method=my_methd"): "did you mean 'my_method'?",
        ("hydra.searchpath=[pkg://my_conf]", "method=my_method"): "pkg://my_conf is no folder",
    }.items():
        with pytest.raises(ValueError) as caught:
            checked("bench", list(arguments))
        assert message in str(caught.value), arguments
    for accepted in [
        (*own, "method=my_method", "method.power=1"),
        ("-cd", "my_conf", "method=my_method"),
        ("--config-dir=my_conf", "--multirun", "method=glob(my_*)", "method.power=0,1"),
        ("hydra.searchpath=[file://my_conf]", "method=my_method", "method.power=1"),
        (f"hydra.searchpath=['{tmp_path}/my_conf']", "method=my_method", "method.power=1"),
    ]:
        assert set(checked("bench", list(accepted))) == set(accepted)
    assert checked("merge", [*own, "method=my_method", "method.power=1"])


def test_a_file_that_a_packaged_one_hides_is_refused(tmp_path, monkeypatch):
    """Hydra would take the packaged one, and what was changed would have no effect."""
    stand_ins.own_methods.write(tmp_path)
    (tmp_path / "my_conf" / "method" / "ties.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="ties.yaml would not be read, since there is a packaged"):
        checked("bench", ["--config-dir", "my_conf", "method=my_method"])


def test_a_mistake_is_found_before_files_are_merged(tmp_path):
    write_checkpoints(stand_ins.own_methods.write(tmp_path, code=changed(CODE, SUM, "** power)")))
    files = ["pretrained=a.safetensors", "finetuned={b: b.safetensors}", "output=out.safetensors"]
    result = tsv(tmp_path, "merge", *ALONE, *files)
    assert result.code == 1 and "with shape (2, 6, 6)" in result.err
    assert not (tmp_path / "out.safetensors").exists()


def test_a_mistake_that_shows_on_the_files_alone_names_its_line(tmp_path):
    code = changed(
        CODE, "    return (deltas", "    deltas.shape[1] > 12 and [][1]\n    return (deltas"
    )
    write_checkpoints(stand_ins.own_methods.write(tmp_path, code=code))
    files = ["pretrained=base.safetensors", "finetuned={b: b.safetensors, a: a.safetensors}"]
    result = tsv(tmp_path, "merge", *ALONE, *files, "output=out.safetensors")
    assert result.code == 1 and "Traceback" not in result.err
    assert "my_method failed (my_method.py, line 13): IndexError: list index" in result.err
    assert not (tmp_path / "out.safetensors").exists()


def test_the_current_folder_hides_no_library(tmp_path):
    (tmp_path / "fractions.py").write_text("raise SystemExit('imported')")
    write_checkpoints(stand_ins.own_methods.write(tmp_path))
    sys.modules.pop("fractions", None)
    assert "My method" in merge(tmp_path, "out.safetensors", *ALONE).err
    import fractions

    assert not str(fractions.__file__).startswith(str(tmp_path))
