"""A recipe file stands for a command line, and a card's recipe makes the same merge again."""

import pytest
import yaml
from made_up.merges import merge, pretrained, same, write_checkpoints
from made_up.state_dicts import save_sharded
from stand_ins.commands import tsv

from tsv_bench.cli.typed.recipe import named_paths, settings, text, with_recipe
from tsv_bench.state_dicts.state_dict import open_state_dict

RECIPE = """
method: {name: ties, density: 0.3, merge: sum}
pretrained: base.safetensors
finetuned: {a: a.safetensors, b: "b (1).safetensors"}
weights: {a: 0.3, b: 0.7}
alpha: {"*in_proj*": 0.5, "*": 1}
cache: {folder: null}
output: out.safetensors
"""


def write(folder, text=RECIPE, name="my.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_recipe_is_what_its_lines_say(tmp_path):
    write_checkpoints(tmp_path)
    (tmp_path / "b.safetensors").rename(tmp_path / "b (1).safetensors")
    write(tmp_path)
    result = tsv(tmp_path, "merge", "recipe=my.yaml")
    assert result.code == 0, result.err
    merge(
        tmp_path, "typed.safetensors", "method=ties", "method.density=0.3", "method.merge=sum",
        "weights={a: 0.3, b: 0.7}", "alpha={'*in_proj*': 0.5, '*': 1}",
        tuned={"a": "a.safetensors", "b": "'b (1).safetensors'"},
    )  # fmt: skip
    found, typed = (open_state_dict(tmp_path / f"{n}.safetensors") for n in ("out", "typed"))
    same(dict(found), dict(typed))
    assert found.metadata["tsv_bench"] == typed.metadata["tsv_bench"]


def test_the_command_line_counts_more(tmp_path):
    path = write(tmp_path)
    lines = with_recipe([f"recipe={path}", "method=slerp", "output=there"])
    assert [line.split("=")[0] for line in lines] == [
        "pretrained", "finetuned", "weights", "alpha", "cache.folder", "recipe", "method", "output",
    ]  # fmt: skip
    assert with_recipe(["method=ties", "recipe=null"]) == ["method=ties", "recipe=null"]


def test_values_are_written_as_hydra_reads_them():
    assert text({"a b": None, "c": [True, 1.5, "x"]}) == "{a\\ b: null, c: [true, 1.5, 'x']}"


def test_numbers_are_those_of_other_yamls(tmp_path):
    """To plain YAML, 1e-3 is a text."""
    found = dict(settings(write(tmp_path, "a: 1e-3\nb: 2.5E3\nc: 1e\nd: 1e3x\ne: 0.5")))
    assert found == {"a": 1e-3, "b": 2500.0, "c": "1e", "d": "1e3x", "e": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: ties\nmodels: []", "has 'merge_method', as mergekit's do. Here it is"),
        ("- a\n- b", "is no mapping of settings"),
        ("a: [1", "line 1, is not YAML"),
        ("recipe: other.yaml", "names another recipe"),
        ("finetuned: {a: x.pt, a: y.pt}", "'a' stands there twice"),
        ("? [a]\n: 1", "a list or a mapping stands where a name is expected"),
        ("outptu: x", "unknown key 'outptu'; did you mean 'output'?"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, text, message):
    write(tmp_path, text)
    result = tsv(tmp_path, "merge", "recipe=my.yaml")
    assert result.code == 1 and message in result.err, result.err


def test_a_recipe_that_is_not_there_or_not_utf8(tmp_path):
    result = tsv(tmp_path, "merge", "recipe=my.yaml")
    assert "recipe: no file at my.yaml" in result.err
    (tmp_path / "my.yaml").write_bytes(b"output: \xe9")
    assert "line 1, is not UTF-8" in tsv(tmp_path, "merge", "recipe=my.yaml").err


def test_the_recipe_of_a_card_makes_the_same_files(tmp_path):
    write_checkpoints(tmp_path)
    save_sharded(tmp_path / "base", content=pretrained())
    merge(tmp_path, "out", "method=ties", "weights={a: 1, b: 2}", base="base")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    recipe = card.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe)["weights"] == {"a": 1, "b": 2}
    write(tmp_path, recipe, "again.yaml")
    result = tsv(tmp_path, "merge", "recipe=again.yaml", "output=again", "cache.folder=null")
    assert result.code == 0, result.err
    same(dict(open_state_dict(tmp_path / "again")), dict(open_state_dict(tmp_path / "out")))


def test_paths_are_named_before_a_command_line_is_composed():
    line = ["method=ties", "pretrained=base/", "finetuned={a: x/a.safetensors,b:'b'}", "base='c'"]
    more = ["finetuned.d=e", "base=~nobody-here/x"]
    assert [str(path) for path in named_paths([*line, *more])] == [
        "base", "a", "x/a.safetensors", "b", "b", "c", "e", "~nobody-here/x",
    ]  # fmt: skip


def test_a_folder_is_no_recipe_and_plus_names_one_as_well(tmp_path):
    with pytest.raises(OSError, match="is a folder; it is one yaml file"):
        with_recipe([f"recipe={tmp_path}"])
    (tmp_path / "r.yaml").write_text("output: x")
    assert with_recipe([f"+recipe={tmp_path}/r.yaml"])[0] == "output='x'"
