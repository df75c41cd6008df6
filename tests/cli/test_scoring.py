"""score= of tsv-merge: which methods take it, and what is said of the others."""

import pytest
from made_up.merges import files, write_checkpoints
from made_up.scored import FEW, SCORER, asked
from stand_ins.commands import tsv

from tsv_bench.cli.typed.quoting import as_text


def merged(folder, *arguments):
    named = ", ".join(f"{task}: {path}" for task, path in files().items())
    paths = ["pretrained=base.safetensors", f"finetuned={{{named}}}", "output=out.safetensors"]
    return tsv(folder, "merge", *paths, "cache.folder=null", *arguments)


def test_a_command_with_braces_is_taken_as_it_is_written(tmp_path):
    write_checkpoints(tmp_path)
    knobs = [f"method.{knob}={value}" for knob, value in FEW.items()]
    done = merged(tmp_path, "method=merge3", f"score={SCORER} {{model}} {{items}}", *knobs)
    assert done.code == 0, done.err
    assert len(asked(tmp_path)) >= 13 and (tmp_path / "out.safetensors").exists()
    said = done.out + done.err
    assert "merge3: 8 candidates, 128 items asked in place of 576" in said
    assert "merge3: a 0." in said or "merge3: a 1." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=merge3"], "merge3 searches, and asks every candidate: give the command"),
        (["method=ties", "score=true {model}"], "score= has no effect on method=ties"),
        (["method=ada_merging", "score=true {model}"], "ada_merging learns on images of the tasks"),
        (["method=merge3", "score=true"], "has no {model}, where the path of a model is put"),
        (["method=merge3", "score=no_such {model}"], "there is no program 'no_such' here"),
        (["method=merge3", "score=true {model}", "method.base=slerp", "method.population=1"],
         "population=1 is not a whole number from 4 on"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_any_work(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    done = merged(tmp_path, *arguments)
    assert done.code == 1 and message in done.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("score=my_eval {model}", "score='my_eval {model}'"),
        ("score='my_eval {model}'", "score='my_eval {model}'"),
        ("score=null", "score=null"),
        ("score=", "score="),
        ("score=sh -c 'x {model}'", r"score='sh -c \'x {model}\''"),
    ],
)
def test_values_are_quoted_once(text, wanted):
    assert as_text(text) == wanted
