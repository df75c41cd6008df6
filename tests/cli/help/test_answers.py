"""Command lines that ask for a text are told from those that ask for work."""

import pytest

import tsv_bench
from tsv_bench.cli.help.answers import answer


@pytest.mark.parametrize(
    "line", ["", "method=ties", "--multirun seed=0,1", "--cfg job", "methods method=ties", "foo",
             "--config-dir", "--hydra-help"],
)  # fmt: skip
def test_work_is_no_question(line):
    assert answer("bench", line.split()) is None


def test_questions_are_answered(tmp_path):
    assert answer("fetch", ["--version"]) == f"tsv-fetch {tsv_bench.__version__}"
    assert answer("bench", ["suites"]).startswith("suite")
    assert answer("bench", ["-h", "seed"]).split() == ["seed=0", "of", "the", "fine-tuning"]
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: mine\nlabel: Mine\nknob: 3   # times\n")
    own = ["--config-dir", str(tmp_path)]
    assert "method.knob=3  times" in answer("bench", [*own, "--help", "method=mine"])
    assert "\nmine  " in answer("bench", [*own, "methods"])
    with pytest.raises(ValueError, match="unknown method 'mien'; did you mean 'mine'"):
        answer("bench", [*own, "--help", "method=mien"])
