"""A command of the user's own asks models, and what becomes of one that does not answer."""

import logging
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from made_up import language_models
from made_up.merges import made, same, write_checkpoints
from made_up.scored import FEW, SCORER, asked, search, searched
from stand_ins.processes import Started

from tsv_bench.merging.scoring import ScoringCommand, parsed
from tsv_bench.state_dicts.state_dict import open_state_dict

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def command(text, seconds=60):
    return ScoringCommand(command=text, seconds=seconds)


def plain(answers):
    return {group: right.tolist() for group, right in answers.items()}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[1, 0, true]", {"items": [True, False, True]}),
        ('{"a": [0], "b": [false, 1]}', {"a": [False], "b": [False, True]}),
        ('loading ...\n{"a": [1]}\n', {"a": [True]}),
    ],
)
def test_answers_are_read_from_all_that_is_printed_or_its_last_line(text, wanted):
    assert plain(parsed(text)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "printed no json as .*it said nothing"),
        ("accuracy: 0.7", "printed no json as .*: 'accuracy: 0.7'"),
        ("0.7", "printed no json as"),
        ("{}", "printed no json as"),
        ('{"a": []}', "'a' in it is no list of 0 and 1"),
        ('{"a": [0.5]}', "'a' in it is no list of 0 and 1"),
        ("[" * 100_000, "printed no json as"),
        ('["1"]', "'items' in it is no list of 0 and 1"),
    ],
)
def test_what_is_no_answer_is_said(text, message):
    assert re.search(message, parsed(text))


@pytest.mark.parametrize(
    ("text", "seconds", "message"),
    [
        ("my_eval", 60, r"has no \{model\}, where the path of a model is put"),
        ("'my_eval {model}", 60, "is no command: No closing quotation"),
        ("no_such_program {model}", 60, "there is no program 'no_such_program' here"),
        ("true {model}", 0, "score_seconds=0 is not a positive number"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_before_any_work(text, seconds, message):
    with pytest.raises(ValueError, match=message):
        command(text, seconds)


def test_a_command_gets_its_paths_and_may_fail_hang_or_say_nothing(tmp_path):
    model, items = tmp_path / "a model", tmp_path / "items.json"
    found = command("sh -c 'echo \"$1\" > seen; echo [1,0]' sh {model}").run(model, items)
    assert plain(found) == {"items": [True, False]}
    Path("seen").unlink()
    failed = command("sh -c 'echo out of memory >&2; exit 3' {model}").run(model, items)
    assert failed == "it ended with code 3: 'out of memory'"
    hung = command("sh -c 'sleep 60 & sleep 60' {model}", 0.05).run(model, items)
    assert hung == "it was ended after 0.05 s (score_seconds)"
    assert command("true {model}").run(model, items).startswith("it printed no json")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A folder with a search that came to its end, and what it wrote."""
    folder = tmp_path_factory.mktemp("found")
    write_checkpoints(folder)
    return folder, searched(folder)


def test_candidates_are_asked_anchors_and_the_best_all_items(found):
    folder, weights = found
    counts = asked(folder)
    endpoints = [("base.safetensors", 72), ("a.safetensors", 72), ("b.safetensors", 72)]
    assert counts[:5] == [*endpoints, ("model.safetensors", 72), ("model.safetensors", 72)]
    assert counts[5:13] == [("model.safetensors", 16)] * 8
    assert set(counts[13:]) == {("model.safetensors", 72)} and len(counts) <= 13 + 3
    left = {path.name for path in folder.iterdir()}
    assert left == {"a.safetensors", "asked.txt", "b.safetensors", "base.safetensors",
                    "out.safetensors"}  # fmt: skip
    made_by = open_state_dict(folder / "out.safetensors").metadata["tsv_bench"]
    assert "{model} {items}" in made_by
    base, a, b = (open_state_dict(folder / f"{n}.safetensors") for n in ("base", "a", "b"))
    name = "visual.proj"
    deltas = torch.stack([(x[name] - base[name]).flatten() for x in (a, b)], dim=1)
    genes = torch.linalg.lstsq(deltas, (weights[name] - base[name]).flatten()).solution
    assert (genes >= -1e-5).all() and (genes <= 1.5).all()
    rebuilt = (deltas @ genes).view_as(base[name]) + base[name]
    torch.testing.assert_close(rebuilt, weights[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_after_kill_9_the_search_goes_on_with_the_same_result(found, tmp_path):
    write_checkpoints(tmp_path)
    hold = ("tsv_bench.merging.merge_files", "write_candidate", 5)  # the third of a generation
    with Started(tmp_path, search, hold=hold) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out.safetensors").exists()
    left = [*tmp_path.glob(".out.safetensors.*.tmp")]  # of the output and of the candidate
    assert len(left) == 2
    before = len(asked(tmp_path))
    same(searched(tmp_path), found[1])
    assert asked(tmp_path) == asked(found[0]) and before == 7
    assert not any(path.exists() for path in left)


def test_without_items_every_candidate_is_asked_all_and_nothing_twice(found, tmp_path):
    write_checkpoints(tmp_path)
    searched(tmp_path, end="{model}", anchors=1000)
    assert [count for _, count in asked(tmp_path)] == [72] * 13


def test_a_candidate_without_an_answer_is_skipped_and_the_search_goes_on(found, tmp_path, caplog):
    shutil.copytree(found[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "asked.txt").unlink()
    (tmp_path / "out.safetensors").unlink()
    # The seventh run says nothing.
    text = f"sh -c 'test -f asked.txt && test $(wc -l < asked.txt) = 6 && echo x >> asked.txt " \
        f"&& echo no >&2 && exit 1; {SCORER} $1 $2' sh {{model}} {{items}}"  # fmt: skip
    with caplog.at_level(logging.WARNING):
        searched(tmp_path, command=text)
    (warning,) = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert warning.startswith("candidate 0.1 is skipped") and "ended with code 1: 'no'" in warning


def test_a_command_that_fails_for_the_models_themselves_ends_it(tmp_path):
    write_checkpoints(tmp_path)
    with pytest.raises(ValueError, match="could not ask pretrained, one of the models"):
        searched(tmp_path, command="false {model}")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_language_model_is_asked_as_a_folder_with_all_that_it_needs(tmp_path, monkeypatch):
    language_models.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    # Items: are configuration, tokenizer and index there?
    looks = 'for f in config.json tokenizer.json model.safetensors.index.json; do test -f "$1/$f" '
    looks += '|| exit 1; done; basename "$1" >> asked.txt; echo [1, 1, 1]'
    scoring = command(f"sh -c '{looks}' sh {{model}}")
    tuned = {task: task for task in ("math", "code")}
    made(Path(), "merge3", "out", base="base", tuned=tuned, knobs=FEW, scoring=scoring)
    models = ["base", "code", "math", "model", "model"]  # the pretrained, the tasks', two merges
    assert Path("asked.txt").read_text().split() == [*models, *["model"] * 8]
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "asked.txt",
        "base",
        "code",
        "math",
        "out",
    }
