"""Paths with special characters, and how to quote what cannot be read."""

import os
import shutil

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from made_up.merges import made, same, write_checkpoints
from omegaconf import OmegaConf
from stand_ins.commands import tsv

from tsv_bench.cli.launch import expand_home
from tsv_bench.cli.typed.quoting import readable
from tsv_bench.state_dicts.state_dict import open_state_dict


def value(text, *flags):
    return OverridesParser.create().parse_overrides(readable([text], flags))[0].value()


@pytest.mark.parametrize(
    "path",
    ["a,b", "model(1).pt", "~/m", "a#1", "x=1/y", "größe/模型.pt", "a b", "it's", "a:b", "50%"],
)
def test_a_path_is_taken_as_it_is_typed(path):
    assert value(f"output={path}") == path
    if not set(path) & set(",[]:'"):
        assert value(f"finetuned={{a: {path}, b: plain}}") == {"a": path, "b": "plain"}
    assert value(f"+finetuned.x={path}") == value(f"paths.runs={path}") == path


@pytest.mark.parametrize("text", ["output=null", "alpha=0.5", "method.alphas=[0.1,1]", "a.b=true"])
def test_what_hydra_reads_stays(text):
    assert readable([text]) == [text]


def test_a_comma_is_a_sweep_only_in_a_multirun():
    assert readable(["output=a,b"], ["-m"]) == ["output=a,b"]
    assert readable(["method.density=1,2"]) == ["method.density=1,2"]


def test_devices_are_several_for_one_run():
    for flags in ([], ["-m"]):
        assert readable(["device=cuda:0,cuda:1"], flags) == ["device='cuda:0,cuda:1'"]
        assert readable(["device=cuda:1"], flags) == ["device=cuda:1"]
    quoted = "device='cuda:0,cuda:1'"
    assert readable([quoted]) == [quoted] and value("device=cpu,cpu") == "cpu,cpu"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("method.name=ä(", "As in: method.name='\"ä(\"'."),
        ("finetuned={a: x", 'finetuned=\'{a: "path of a", b: "path of b"}\''),
        ("output={r}/x", "As in: output='\"{r}/x\"'."),
        ("finetuned=[x", 'As in: finetuned=\'["first", "second"]\'.'),
    ],
)
def test_what_cannot_be_read_is_shown_in_quotes(text, advice):
    with pytest.raises(ValueError, match="cannot read ") as caught:
        readable([text])
    assert advice in str(caught.value) and "mean something else" in str(caught.value)


PATHS = ["pretrained=base.safetensors", "output=out.safetensors", "cache.folder=null"]
TUNED = "finetuned={a: a.safetensors, b: b.safetensors}"


def test_odd_names_are_merged(tmp_path):
    write_checkpoints(tmp_path)
    shutil.move(tmp_path / "base.safetensors", tmp_path / "größe, #1 (2).safetensors")
    shutil.move(tmp_path / "a.safetensors", tmp_path / "a=(1) ü.safetensors")
    result = tsv(
        tmp_path, "merge", "pretrained=größe, #1 (2).safetensors", "output=x~,1.safetensors",
        "finetuned={a: a=(1) ü.safetensors, b: b.safetensors}", "cache.folder=null",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (tmp_path / "x~,1.safetensors").exists()


def test_home_is_expanded_everywhere(tmp_path, monkeypatch):
    write_checkpoints(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    result = tsv(
        tmp_path, "merge", "pretrained=~/base.safetensors", "output=~/deep/out.safetensors",
        "finetuned={a: ~/a.safetensors, b: b.safetensors}", "cache.folder=~/kept",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (tmp_path / "deep" / "out.safetensors").exists() and (tmp_path / "kept").is_dir()
    assert not (tmp_path / "~").exists()
    [expected] = made(tmp_path, "tsv_merge", "again.safetensors")
    same(open_state_dict(tmp_path / "deep" / "out.safetensors"), expected)


def test_home_is_expanded_in_lists_and_before_what_is_interpolated(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    node = {"a": ["~", {"b": ["x", "~/x"]}], "c": "~/${d}", "d": "k~/", "e": "${c}", "f": "???"}
    config = OmegaConf.create(node)
    expand_home(config)
    expected = node | {"a": ["/h", {"b": ["x", "/h/x"]}], "c": "/h/k~/"}
    assert OmegaConf.to_container(config) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetuned.a=x.pt"], "a: no checkpoint at x.pt"),
        (["finetuned={null: a.safetensors}"], "null is nothing, and no name. Choose"),
        ([TUNED, "pretrained=gone"], "is a link that leads to nowhere.pt, and there is nothing"),
        ([TUNED, "pretrained=owner/name"], "hf download owner/name --local-dir name, then name"),
        ([TUNED, "pretrained=there/name.pt"], "no checkpoint at there/name.pt. Paths are taken"),
    ],
)  # fmt: skip
def test_mistakes_are_said_with_a_way_out(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    os.symlink("nowhere.pt", tmp_path / "gone")
    result = tsv(tmp_path, "merge", *PATHS, *arguments)
    assert result.code == 1 and message in result.err, result.err


def test_a_yaml_in_latin_1_is_named(tmp_path):
    write_checkpoints(tmp_path)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "mine.yaml").write_bytes(b"name: mine\nlabel: gr\xf6\xdfe\n")
    result = tsv(tmp_path, "merge", "--config-dir", "conf", "method=mine", *PATHS, TUNED)
    assert result.code == 1
    assert "mine.yaml, line 2, is not UTF-8, as yaml is: it has the byte 0xf6" in result.err
