"""Which alpha tsv-merge takes where none is given, and what it says of it."""

import logging

import pytest
from stand_ins.configurations import composed

from tsv_bench.cli.config.method_yaml import described
from tsv_bench.cli.config.scales import chosen_alpha

TWO = "weights={a: 0.3, b: 0.7}"


@pytest.mark.parametrize(
    ("arguments", "tasks", "alpha", "said"),
    [
        (["method=task_arithmetic"], 2, 0.3, "alpha=0.3, the default of task_arithmetic without"),
        (["method=task_arithmetic", TWO], 2, 1.0, "alpha=1, as weights= scales"),
        (["method=task_arithmetic", TWO, "alpha=0.4"], 2, 0.4, ""),
        (["method=tsv_merge", TWO], 2, 1.0, "alpha=1, the default of tsv_merge"),
        (["method=ties"], 8, 1.0, "alpha=1, the default of ties"),
        (["method=ties", "method.merge=sum"], 8, 0.3, "alpha=0.3"),
        (["method=iso_c"], 2, 1.3, "alpha=1.3"),
        (["method=iso_c"], 13, 1.3, "alpha=1.3"),
        (["method=iso_c"], 14, 1.0, "alpha=1,"),
        (["method=iso_c"], 40, 0.9, "alpha=0.9"),
        (["method=weight_average"], 8, 1.0, ""),
        (["method=magmax"], 8, 0.5, ""),
        (["method=task_arithmetic", "alpha={*attn*: 2}"], 8, 0.3, "alpha=0.3"),
    ],
)
def test_alpha_is_the_published_one_unless_given(arguments, tasks, alpha, said, caplog):
    caplog.set_level(logging.INFO)
    config = composed("merge", *arguments)
    assert chosen_alpha(config, described(config), tasks) == alpha
    assert said in caplog.text and bool(said) == bool(caplog.text)
