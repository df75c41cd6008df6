"""Comments of a yaml belong to its keys."""

from tsv_bench.cli.help.comments import Setting, examples, groups, settings, summary

TEXT = """\
# @package _global_
# tsv-x: does this, and
# that (2025). More of it.
#   tsv-x a=1
#   HF_HUB_OFFLINE=1 tsv-x   # quickly
# Else nothing.
defaults:
  - method: ties
  - task: null   # null: none
  - _self_
  - override hydra/job_logging: stdout   # a log

# of nothing
a: 1       # one, and
           # more
b: "x # y"
c:
  # of the next
  d: [1,
      2]   # a list
many:
  {keys}
hydra:
  e: 1   # not a setting
"""


def test_keys_values_and_comments(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(TEXT.format(keys="\n  ".join(f"k{n}: {n}" for n in range(11))))
    assert settings(path) == [
        Setting("a", "1", "one, and more"),
        Setting("b", '"x # y"', ""),
        Setting("c.d", "[1, 2]", "a list"),
        Setting("many", "{...}", "11 keys"),
    ]
    assert groups(path) == [Setting("method", "ties", ""), Setting("task", "null", "null: none")]
    assert summary(path) == "tsv-x: does this, and that (2025)."
    assert examples(path) == ["tsv-x a=1", "HF_HUB_OFFLINE=1 tsv-x   # quickly"]


def test_an_empty_yaml_has_no_settings(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("")
    assert settings(path) == [] and summary(path) == "" and examples(path) == []
