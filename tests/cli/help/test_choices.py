"""tsv-bench methods, suites, tasks, ...: a line for each choice, a user's own included."""

from tsv_bench.cli.config.search_path import groups, options
from tsv_bench.cli.help.choices import choices_page, lists


def test_every_choice_has_its_line():
    for group in groups():
        header, *lines = choices_page(group).splitlines()
        assert header.split()[0] == group
        named = [line.split() for line in lines if not line.startswith(" ")]
        assert [words[0] for words in named] == options(group)
        assert all(len(words) > 1 for words in named)


def row(group, name, own=()):
    [line] = [x for x in choices_page(group, own).splitlines() if x.startswith(f"{name} ")]
    return " ".join(line.split())


def test_what_a_line_says(tmp_path):
    assert row("method", "ties") == "ties TIES Yadav et al. 2023, arXiv:2306.01708 weights"
    assert row("method", "regmean").endswith("256 train images a task, without labels")
    assert row("method", "atm").endswith("all train images a task, with labels")
    assert row("task", "dtd") == "dtd DTD 47 3384 / 376 / 1880 tanganke/dtd"
    assert row("task", "signs") == "signs Signs 16 2000 / 80 / 500 embedded"
    assert row("suite", "mini2") == "mini2 2 digits, street"
    assert row("backbone", "mini") == "mini Mini ViT mini mini.safetensors"
    assert row("experiment", "embedded").endswith("seven methods on the embedded suite.")


def test_own_choices_are_listed(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("label: My own\nneeds: [inputs]\n")
    assert row("method", "mine", [tmp_path]).startswith(
        "mine My own the yaml of mine has needs but"
    )


def test_words_that_list():
    words = lists()
    assert {"methods", "suites", "tasks", "backbones", "checkpoints", "experiments"} <= set(words)
