"""Mistakes on a command line are found before Hydra sees them, with the nearest right name."""

import pytest
from hydra import compose, initialize_config_dir
from stand_ins.configurations import composed

from tsv_bench.cli.config.overrides import CONF, checked

MINI8 = ["digits", "street", "signs", "textures", "land", "greek", "symbols", "shapes"]


def tasks(*arguments):
    """Return the suite's tasks that Hydra composes from the checked arguments."""
    overrides = checked_here(*arguments)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return list(compose("bench", overrides).suite.tasks)


def checked_here(*arguments):
    return checked("bench", list(arguments))


MISSPELT = {
    "method=tsv_mrge": "unknown method 'tsv_mrge'; did you mean 'tsv_merge'",
    "suite=mini9": "unknown suite 'mini9'; did you mean 'mini8'",
    "backbone=mimi": "unknown backbone 'mimi'; did you mean 'mini'",
    "tracker=wadnb": "unknown tracker 'wadnb'; did you mean 'wandb'",
    "checkpoints=finetuned": "unknown checkpoints 'finetuned'; did you mean 'finetune'",
    "experiment=embeded": "unknown experiment 'embeded'; did you mean 'embedded'",
    "suite.tasks=[digits,sings]": "unknown task 'sings'; did you mean 'signs'",
    "+suite.tasks=[latn]": "unknown task 'latn'; did you mean 'latin'",
    "metod=ties": "unknown key 'metod'; did you mean 'method'",
    "shared_only=true": "shared_only= is a setting of tsv-analyze and tsv-merge.",
    "sede=1": "unknown key 'sede'; did you mean 'seed'",
    "method.polr=eigen": "unknown key 'polr' in method; did you mean 'polar'",
    "paths.rnus=elsewhere": "unknown key 'rnus' in paths; did you mean 'runs'",
    "pathes.runs=elsewhere": "unknown key 'pathes'; did you mean 'paths'",
    "suite.tasks.sings.epochs=1": "unknown key 'sings' in suite.tasks; did you mean 'signs'",
    "suite.tasks.signs.epoch=1": "unknown key 'epoch' in suite.tasks.signs; did you mean 'epochs'",
    "suite.tasks.signs.source.num_images.tarin=1": "did you mean 'train'",
    "~suite.tasks.lnad": "unknown key 'lnad' in suite.tasks; did you mean 'land'",
    "paths={rnus: elsewhere}": "unknown key 'rnus' in paths; did you mean 'runs'",
    "suite.tasks.signs={source: {num_imges: 1}}": "'num_imges' in suite.tasks.signs.source; did",
    "backbone.finetune.rat=1": "unknown key 'rat' in backbone.finetune; did you mean 'rate'",
}


@pytest.mark.parametrize("argument", MISSPELT)
def test_a_misspelt_name_is_answered_with_the_nearest(argument):
    with pytest.raises(ValueError) as caught:
        checked_here(argument)
    assert MISSPELT[argument] in str(caught.value)


@pytest.mark.parametrize("argument", ["method=ties,tsv_merge", "seed=0,1", "method=glob(tsv*)"])
def test_several_values_are_for_a_multirun(argument):
    with pytest.raises(ValueError, match="has several values, .* if --multirun is given"):
        checked_here(argument)
    assert checked_here("--multirun", argument)
    assert checked_here("experiment=embedded", "seed=0,1")


def test_a_name_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(
        ValueError, match=r"unknown method .xyz.\. There are: ace, .*breadcrumbs, cart"
    ):
        checked_here("method=xyz")


def test_a_knob_of_another_method_is_unknown():
    with pytest.raises(ValueError, match="unknown key 'density' in method"):
        checked_here("method=tsv_merge", "method.density=0.1")
    assert checked_here("method=ties", "method.density=0.1")
    assert checked_here("method.density=0.1", "method=ties")  # in any order


def test_a_key_of_another_command_is_unknown():
    with pytest.raises(ValueError, match="unknown key 'overwrite'"):
        checked("finetune", ["overwrite=true"])


def test_tasks_are_selected_in_the_order_given():
    assert tasks("suite.tasks=[shapes,signs]") == ["shapes", "signs"]
    assert tasks("suite.tasks=[ 'shapes', signs ]") == ["shapes", "signs"]
    assert tasks("suite=mini14", "suite.tasks=[latin]") == ["latin"]


def test_one_task_needs_no_brackets():
    assert tasks("suite.tasks=signs") == ["signs"]


def test_a_task_is_dropped():
    assert tasks("~suite.tasks.land") == [task for task in MINI8 if task != "land"]


@pytest.mark.parametrize(
    "argument",
    ["+suite.tasks=[latin]", "+suite.tasks=latin", "++suite.tasks=[latin]",
     "+task@suite.tasks=latin", f"suite.tasks=[{','.join(MINI8)},latin]"],
)  # fmt: skip
def test_a_task_is_added(argument):
    assert tasks(argument) == [*MINI8, "latin"]


def test_tasks_are_added_and_dropped():
    arguments = ["+suite.tasks=[latin,math]", "~suite.tasks.land", "suite.tasks.math.epochs=1"]
    assert tasks(*arguments) == [*(task for task in MINI8 if task != "land"), "latin", "math"]


def test_a_selected_task_has_its_knobs():
    assert checked_here("suite.tasks=[latin]", "suite.tasks.latin.epochs=1")
    with pytest.raises(ValueError, match="unknown key 'signs' in suite.tasks"):
        checked_here("suite.tasks=[latin]", "suite.tasks.signs.epochs=1")


@pytest.mark.parametrize("value", ["[]", "null", "[null]"])
def test_an_empty_suite_is_refused(value):
    with pytest.raises(ValueError, match="the suite has no tasks: name at least one"):
        checked_here(f"suite.tasks={value}")


@pytest.mark.parametrize(
    "arguments",
    [["suite.tasks=[signs,land,signs]"], ["+suite.tasks=[signs]"], ["+suite.tasks=[math,math]"],
     ["+suite.tasks=[math]", "suite=mini14"], ["suite=mini8,mini14", "+suite.tasks=[math]"],
     ["suite.tasks=[signs],[math,math]"]],
)  # fmt: skip
def test_the_same_task_twice_is_refused(arguments):
    with pytest.raises(ValueError, match="twice; name each task once"):
        checked_here(*arguments)


def test_a_selection_and_an_addition_do_not_go_together():
    with pytest.raises(ValueError, match="name all tasks in"):  # Hydra would drop the addition
        checked_here("suite.tasks=[signs]", "+suite.tasks=[latin]")


def test_every_option_of_a_sweep_is_checked():
    assert checked_here("--multirun", "method=ties,tsv_merge", "seed=0,1")
    with pytest.raises(ValueError, match="unknown method 'tsv_merg'"):
        checked_here("--multirun", "method=ties,tsv_merg")
    with pytest.raises(ValueError, match="unknown method 'tie'"):
        checked_here("--multirun", "method=choice(tie,tsv_merge)")
    with pytest.raises(ValueError, match="unknown task 'sign'"):
        checked_here("--multirun", "suite.tasks=[signs,land],[sign]")


def test_every_option_of_a_sweep_must_have_the_knob():
    assert checked_here("--multirun", "method=tsv_merge,tsv_compress", "method.rank_fraction=0.1")
    with pytest.raises(ValueError, match="'density' in method with method=tsv_merge"):
        checked_here("--multirun", "method=ties,tsv_merge", "method.density=0.1")


@pytest.mark.parametrize(
    "given, taken",
    [
        ("method.density=0.1", "method.density=choice(0.1)"),
        ("method.density=", "method.density=choice('')"),
        ("method.density=0.1,0.2", "method.density=0.1,0.2"),
        ("method.alphas=[1.0]", "method.alphas=[1.0]"),  # the default method has it
        ("seed=1", "seed=1"),
    ],
)
def test_a_knob_of_swept_methods_is_left_to_the_jobs(given, taken):
    """Hydra's first configuration is that of the default method, TSV-M."""
    line = ["--multirun", "method=ties,dare_ties"]
    assert checked_here(*line, given) == [*line, taken]
    tasks = checked_here(
        "--multirun", "suite.tasks=[latin],[latin,signs]", "suite.tasks.latin.epochs=2"
    )
    assert tasks[-1] == "suite.tasks.latin.epochs=choice(2)"


def test_selections_of_tasks_are_swept():
    arguments = ["--multirun", "suite.tasks=[signs,land],[signs]"]
    assert checked_here(*arguments)[1] == "task@suite.tasks=[signs,land],[signs]"


def test_a_glob_sweeps_the_options_it_matches():
    assert checked_here("--multirun", "method=glob([tsv_m*,tsv_c*])", "method.rank_fraction=0.1")
    with pytest.raises(ValueError, match="unknown method"):
        checked_here("--multirun", "method=glob(q*)")


@pytest.mark.parametrize(
    "arguments",
    [["hydra.job.name=x"], ["hydra.verbose=true"], ["+new.key=1"], ["++new=1"], ["--cfg", "job"],
     ["hydra/launcher=basic"], ["hydra/job_logging=none"], ["hydra/sweeper=basic", "seed=1"],
     ["--multirun"], ["seed=${oc.env:HOME}"], ["method.alphas=[0.1,0.2]"],
     ["--config-dir", "elsewhere", "--config-name", "mine", "method=mine"]],
)  # fmt: skip
def test_what_is_for_hydra_passes_unchanged(arguments):
    assert sorted(checked_here(*arguments)) == sorted(arguments)


def test_what_hydra_lacks_is_named_with_what_brings_it():
    with pytest.raises(ValueError, match="unknown hydra/launcher 'basik'; did you mean 'basic'"):
        checked_here("hydra/launcher=basik")
    with pytest.raises(ValueError, match="'slrm'; did you mean 'slurm'"):
        checked_here("hydra/launcher=slrm")


@pytest.mark.parametrize("argument", ["seed=1,,2", "a=b=c", "seed=[1"])
def test_what_cannot_be_parsed_is_an_error_without_hydras_links(argument):
    with pytest.raises(ValueError) as caught:
        checked_here(argument)
    assert "hydra.cc" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "finetuned={a: x.pt, b: y.pt, a: z.pt}",
        "+inputs={all: {a: x, a: y}}",
        "inputs=[{a: x, a: y}]",
    ],
)
def test_a_key_that_a_mapping_has_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"= has 'a' twice, of which only the last would count"):
        checked("merge", ["pretrained=p.pt", text])


def test_one_key_in_several_mappings_is_well():
    arguments = ["finetuned={a: x.pt, b: x.pt}", "inputs={a: x, b: x}"]
    assert checked("merge", arguments) == arguments


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("alpha={'*attn*': 0.5, \"b c\": 1}", {"*attn*": 0.5, "b c": 1}),
        ("finetuned={'a, (b)=': 'x: {y}', c: 'd'}", {"a, (b)=": "x: {y}", "c": "d"}),
        ("alpha={plain: 1}", {"plain": 1}),
    ],
)
def test_keys_of_a_mapping_may_stand_in_quotes(typed, taken):
    assert composed("merge", *checked("merge", [typed]))[typed.split("=")[0]] == taken
