"""The merges of two small language models in docs/merge.md, run as they stand there."""

import re
import shlex
from pathlib import Path

import made_up.language_models
import pytest
import torch
from stand_ins.commands import tsv

from tsv_bench.state_dicts.state_dict import open_state_dict

PAGE = (Path(__file__).parents[2] / "docs" / "merge.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tsv-merge .*)$", PAGE, re.M)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    made_up.language_models.make(folder / "models")
    return folder


def test_merged_folder_is_like_the_base_and_says_what_the_page_says(folder):
    result = tsv(folder, "merge", *COMMANDS[0], "cache.folder=null")
    assert result.code == 0, result.err
    said = re.search(r"TSV-M of 2 tasks -> \S+ \(1 written, 0.3 MB\)", result.out + result.err)
    assert said and said[0] in PAGE
    base, merged = (folder / "models" / name for name in ("base", "merged"))
    own = [*(p.name for p in base.iterdir()), "README.md"]  # and the model card
    assert sorted(own) == sorted(p.name for p in merged.iterdir())
    before, after = open_state_dict(base), open_state_dict(merged)
    assert before.shards == after.shards
    assert {after.dtype(name) for name in after} == {torch.bfloat16}


def test_table_of_compressed_files_is_the_pages(folder):
    result = tsv(folder, "merge", *COMMANDS[1], "cache.folder=null")
    assert result.code == 0, result.err
    table = result.out.strip().splitlines()
    assert len(table) == 4 and all(line.rstrip() in PAGE for line in table)
    assert len(COMMANDS) == 3  # the last by statistics: commands/test_observe.py


def test_table_of_an_analysis_is_the_pages(folder):
    [command] = re.findall(r"^    tsv-analyze (.*)$", PAGE, re.M)
    result = tsv(folder, "analyze", *shlex.split(command), "cache.folder=null", "figures=false")
    assert result.code == 0, result.err
    shown = [line.split() for line in PAGE.splitlines()]
    rows = [line.split() for line in result.out.splitlines() if "model.layers." in line]
    assert len(rows) == 2 and rows[0][0] == "model.layers.0"
    for block, matrices, raw, merged, *others in rows:
        assert float(merged) < 1e-10  # rounding, so another number on another machine
        [there] = [line for line in shown if line[:1] == [block]]
        assert there[:3] + there[4:] == [block, matrices, raw, *others]
