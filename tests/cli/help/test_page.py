"""--help: usage, examples and what has an effect, in the words of the yamls, on one screen."""

import pytest

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.help.comments import settings
from tsv_bench.cli.help.page import help_page

COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "launch")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_screen_with_every_option_and_examples(command):
    lines = help_page(command).splitlines()
    assert len(lines) < 60
    assert lines[0].startswith(f"tsv-{command}: ")
    assert 1 <= sum(line.startswith(f"  tsv-{command}") for line in lines) <= 3
    shown = " ".join(lines)
    for setting in settings(CONF / f"{command}.yaml"):
        assert f" {setting.key}=" in shown
    assert "_target_" not in shown and "hydra." not in shown


def test_only_groups_of_the_command_are_offered():
    assert "suite=" not in help_page("merge") and "write=model" in help_page("merge")
    assert "method=tsv_merge" in help_page("merge") and "experiment=" not in help_page("report")


def test_a_choice_shows_what_it_can_be_set_to_and_no_more():
    merge, bench = (help_page(command, {"method": "regmean"}) for command in ("merge", "bench"))
    for page in (merge, bench):
        assert "method.paper" not in page and "method.serve" not in page
        assert "method.off_diagonal=0.95 scale of x^T x beside its" in " ".join(page.split())
        assert "overwrite" not in page and "method.needs" not in page
    assert "method.images" in bench and "method.images" not in merge
    assert "checkpoints.folder=???" in help_page("bench", {"checkpoints": "folder"})


def test_a_key_shows_all_that_is_said_of_it():
    assert "By layers" not in help_page("merge")
    text = help_page("merge", keys=["alpha", "cache"])
    assert "By layers, the first pattern that fits" in " ".join(text.split())
    assert "cache.folder=" in text and "cache.max_gb=20" in text and "usage" not in text
    with pytest.raises(ValueError, match="no option 'alhpa'; did you mean 'alpha'"):
        help_page("merge", keys=["alhpa"])


def test_a_default_that_is_made_of_others_is_shown_as_it_is_taken(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert "paths.report=runs/report" in help_page("bench")
    assert "cache.folder=~/.cache/tsv-bench/factors" in help_page("merge")
