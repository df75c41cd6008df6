"""The model card: what it says, and that nobody's own text is lost."""

import hashlib
import json

import pytest
import yaml
from made_up.merges import files, merge, pretrained, write_checkpoints
from made_up.state_dicts import save_sharded
from stand_ins import hydras_plugins
from stand_ins.commands import tsv

from tsv_bench.merging.told.card import Card, hub_id, is_own

OWN = "---\nlicense: apache-2.0\nlanguage: [en]\ndatasets: [x]\n---\n# The base\n"


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    save_sharded(tmp_path / "base", content=pretrained())
    (tmp_path / "base" / "config.json").write_text('{"_name_or_path": "owner/base-7b"}')
    (tmp_path / "base" / "README.md").write_text(OWN)
    return tmp_path


def front(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1]), text


def test_a_merged_folder_says_how_it_was_made(folder):
    merge(folder, "out", "method=ties", "method.density=0.3", base="base")
    matter, text = front(folder / "out" / "README.md")
    assert matter == {
        "base_model": ["owner/base-7b"],
        "base_model_relation": "merge",
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "transformers",
        "tags": ["merge", "tsv-bench", "ties"],
    }
    assert "# out\n" in text and "TIES of a, b, merged by tsv-bench" in text
    for task, path in files().items():
        digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert f"| {task} | {path} | {path} | `{digest}` |" in text
    assert "density: 0.3" in text and "tsv-merge" in text.split("```sh\n")[1]
    assert "# The base" not in text


def test_that_of_a_job_in_another_process_has_the_command_line_too(folder, monkeypatch):
    """The process knows it from what it was sent alone."""
    hydras_plugins.register(monkeypatch)
    hydras_plugins.take_for_elsewhere(monkeypatch, program="tsv-merge", arguments=("as typed",))
    swept = ["hydra/launcher=elsewhere", "--multirun", "method=weight_average,task_arithmetic"]
    merge(folder, "${method.name}", *swept, base="base")
    for name in ("weight_average", "task_arithmetic"):
        text = front(folder / name / "README.md")[1]
        assert text.split("```sh\n")[1].startswith("tsv-merge 'as typed'\n")
    assert not [*folder.rglob(".sweep-*")]


def test_each_tasks_folder_has_its_own(folder):
    merge(folder, "out", "method=tall_mask_ta", "method.mask_lambda=0.4", base="base")
    for task in "ab":
        matter, text = front(folder / "out" / task / "README.md")
        assert f"of a, b for {task}, merged" in text and matter["tags"][-1] == "tall_mask_ta"


@pytest.mark.parametrize("output", ["out.safetensors", "vector"])
def test_a_file_and_a_vector_have_none(folder, output):
    arguments = ["write=vector"] if output == "vector" else []
    merge(folder, output, *arguments, base="base")
    copied = folder / output / "README.md"
    assert not copied.exists() or copied.read_text() == OWN


def again(folder):
    named = "finetuned={a: a.safetensors, b: b.safetensors}"
    return tsv(folder, "merge", "pretrained=base", named, "output=out", "overwrite=true",
               "cache.folder=null")  # fmt: skip


def test_a_card_is_replaced_with_its_folder(folder):
    merge(folder, "out", "method=ties", base="base")
    assert again(folder).code == 0
    assert front(folder / "out" / "README.md")[0]["tags"][-1] == "tsv_merge"


def test_a_card_that_somebody_has_edited_stays(folder):
    merge(folder, "out", base="base")
    card = folder / "out" / "README.md"
    mine = card.read_text(encoding="utf-8").replace("# out", "# My model")
    card.write_text(mine, encoding="utf-8")
    result = again(folder)
    assert result.code == 1 and "has a README.md that somebody has written or edited" in result.err
    assert card.read_text(encoding="utf-8") == mine


def test_a_copy_of_the_pretrained_ones_is_nobodys_own(folder):
    (folder / "copy.md").write_text(OWN)
    assert is_own(folder / "copy.md", folder / "base")
    (folder / "copy.md").write_text(OWN + "mine")
    assert not is_own(folder / "copy.md", folder / "base")


@pytest.mark.parametrize("named", ['{"_name_or_path": "./base"}', "{}", "[", "[]"])
def test_a_folder_without_an_id_of_the_hub(tmp_path, named):
    (tmp_path / "config.json").write_text(named)
    assert hub_id(tmp_path) is None
    snapshot = "cache/models--owner--some-model/snapshots/abc"
    assert hub_id(snapshot) == hub_id(f"{snapshot}/model.safetensors") == "owner/some-model"


def test_what_ends_a_cell_is_escaped():
    about = {"method": "ties", "version": "1", "inputs": {"a": {"x|y<b>.pt": "0"}}}
    card = Card(label="TIES", sources={"pretrained": "p", "a": "x|y<b>.pt"})
    text = card.text({"tsv_bench": json.dumps(about)}, "out")
    assert "| a | x\\|y&lt;b>.pt | x\\|y&lt;b>.pt | `0` |" in text
