"""Caches that are complete and may only be read: commands use them and get the same numbers."""

import shutil

from stand_ins.commands import SMALL, TASKS, numbers, small, tsv
from stand_ins.disk import read_only


def test_complete_caches_are_used(fine_tuned, tmp_path, monkeypatch, caplog):
    caches = tmp_path / "caches"
    shutil.copytree(fine_tuned, caches)
    places = [f"paths.{name}={caches / name}" for name in ("data", "checkpoints")]
    fixed = ["method=tsv_merge", "method.alphas=[1.0]", f"cache.folder={caches / 'factors'}"]
    arguments = [*fixed, *places, *SMALL]
    found = []
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        result = tsv(tmp_path / name, "bench", *arguments)
        assert result.code == 0, result.err
        found.append(numbers(tmp_path / name, "tsv_merge"))
        read_only(monkeypatch, caches)
    assert found[0] == found[1]
    assert "cannot write" not in caplog.text and "not kept" not in caplog.text

    tasks = [f"task=[{','.join(TASKS)}]", *small("task", TASKS)]
    assert tsv(tmp_path, "finetune", *tasks, *places).code == 0
    refused = tsv(tmp_path, "finetune", *tasks, *places, "seed=1")
    assert refused.code == 1 and "Read-only file system" in refused.err
