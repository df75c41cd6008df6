"""Published figures: they are consistent, and it is known when they may be compared."""

from itertools import product

import pytest
import yaml
from omegaconf import OmegaConf

from tsv_bench.benchmark import published
from tsv_bench.cli.config.overrides import CONF, options
from tsv_bench.report.text.numbers import as_printed

CELLS = list(product(published.backbones(), published.suites()))
# Images of the test splits, in the paper's order of tasks; those of EuroSAT are of its 2,700.
NUM_IMAGES = (8041, 1880, 2700, 12630, 10000, 6300, 26032, 19850, 8000, 3669, 6149, 10000, 32768,
              7178, 10000, 25250, 10000, 1821, 40000, 10000)  # fmt: skip


def test_the_papers_cell_is_found_first():
    figure, *others = published.find("vit_b32", "vision8", "tsv_merge")
    assert figure[:3] == (0.8586, 0.9231, "original")
    assert "2412.00081" in figure.source
    assert [(f.absolute, f.normalized, f.generation) for f in others] == [
        (0.8307, None, "fusion_bench"),
        (0.8322, None, "fixed"),
    ]


# Copied by hand from the sources: percent, [absolute, normalized].
COPIED = {
    ("vit_b16", "vision8", "zero_shot"): (55.34, 59.34),
    ("vit_l14", "vision20", "weight_average"): (71.60, 75.60),
    ("vit_b32", "vision20", "task_arithmetic"): (60.52, 66.79),
    ("vit_b32", "vision14", "tsv_merge"): (80.06, 87.88),
    ("vit_b16", "vision20", "tsv_merge"): (80.57, 86.45),
    ("vit_l14", "vision8", "tsv_merge"): (92.98, 96.98),
    ("vit_l14", "vision14", "tsv_compress"): (94.04, 99.72),
    ("vit_l14", "vision20", "individual"): (94.73, 100),
    ("vit_b32", "vision8", "tsv_low_rank"): (None, 75.2),
    ("vit_l14", "vision20", "tsv_interference_only"): (None, 81.0),
    ("vit_b16", "vision14", "ties"): (73.2, 78.7),
    ("vit_l14", "vision14", "iso_cts"): (91.0, 96.3),
    ("vit_b32", "vision20", "esm"): (82.3, 90.1),
}


@pytest.mark.parametrize("cell", COPIED)
def test_figures_are_those_of_the_sources(cell):
    figure = published.find(*cell)[0]
    assert tuple(x and round(100 * x, 2) for x in figure[:2]) == COPIED[cell]


def test_averages_of_one_generation_are_not_mixed_with_another():
    found = published.averages("vit_b32", "vision8")
    assert set(found) == set(published.generations())
    # Copied by hand: the same methods on both checkpoints.
    for method, original, ilharco in (("task_arithmetic", 0.7079, 0.705), ("ties", 0.751, 0.736),
                                      ("iso_c", 0.863, 0.841)):  # fmt: skip
        assert found["original"][method].absolute == original
        assert found["ilharco"][method].absolute == ilharco
    assert "wudi" not in found["original"] and "tsv_merge" not in found["ilharco"]
    assert "tsv_low_rank" not in found["original"], "only its normalized accuracy is published"
    assert found["fixed"]["tsv_merge"].absolute == 0.8322
    assert published.averages("vit_b32", "mini8") == {}


@pytest.mark.parametrize("cell", [
    ("mini", "vision8", "ties"), ("vit_b32", "mini8", "ties"), ("vit_b32", "vision8", "nothing"),
])  # fmt: skip
def test_where_nothing_is_published_nothing_is_found(cell):
    assert published.find(*cell) == []
    assert published.accuracies(*cell) == {}


def test_every_method_of_the_papers_tables_has_all_nine_cells():
    methods = ("zero_shot", "weight_average", "task_arithmetic", "ties", "tsv_merge",
               "tsv_compress", "individual", "tsv_low_rank", "tsv_interference_only")  # fmt: skip
    for method, cell in product(methods, CELLS):
        figure = published.find(*cell, method)[0]
        assert figure.generation == "original"
        assert 0 < figure.normalized <= 1.01
        assert (figure.absolute is None) == (method in ("tsv_low_rank", "tsv_interference_only"))


def test_a_figure_says_how_sure_it_is():
    [ace] = published.find("vit_b32", "vision8", "ace")
    assert (ace.absolute, ace.sure, ace.origin) == (0.879, "note", "original, note")
    [inferred] = published.find("vit_l14", "vision14", "ace")
    assert (inferred.absolute, inferred.sure) == (0.911, "inferred")
    esm = published.find("vit_b32", "vision8", "esm")[0]
    assert (esm.absolute, esm.sure, esm.origin) == (0.886, "primary", "original")
    known = {"primary", "note", "inferred"}
    tables = published._content()["averages"]
    assert {table.get("sure", "primary") for table in tables} == known
    assert {table["generation"] for table in tables} <= set(published.generations())


def test_methods_here_have_the_names_that_figures_are_filed_under():
    methods = set(options("method"))
    without = {m for m in methods if not published.find("vit_b32", "vision8", m)}
    assert without == {
        "anchored_regression", "atm", "breadcrumbs", "consensus_ties", "core_space", "dare_ta",
        "dare_ties", "knots", "lata", "lines", "localize_and_stitch", "lot", "magmax",
        "magnitude_mask", "merge3", "model_stock", "pro_distill", "slerp", "subspace_boosting",
        "svc", "tall_mask_ta", "twin_merging",
    }  # fmt: skip


@pytest.mark.parametrize(("backbone", "suite"), CELLS)
def test_individual_accuracies_average_to_the_published_row(backbone, suite):
    found = published.normalizer(backbone, published.suites()[suite])["test"]
    row = published.find(backbone, suite, "individual")[0]
    assert sum(found.values()) / len(found) == pytest.approx(row.absolute, abs=0.5e-4)
    assert row.normalized == 1
    assert published.accuracies(backbone, suite, "individual") == found


@pytest.mark.parametrize("backbone", published.backbones())
def test_individual_accuracies_are_of_whole_images(backbone):
    found = published.normalizer(backbone, published.suites()["vision20"])["test"]
    for accuracy, total in zip(found.values(), NUM_IMAGES, strict=True):
        assert accuracy * total == pytest.approx(round(accuracy * total), abs=1e-6)


@pytest.mark.parametrize("method", ["zero_shot", "weight_average", "task_arithmetic", "tsv_merge",
                                    "consensus_ta", "tsv_compress"])  # fmt: skip
def test_accuracies_of_tasks_average_to_the_published_row(method):
    """Absolute, and normalized: the mean of the ratios to the published individual models."""
    found = published.accuracies("vit_b32", "vision8", method)
    own = published.normalizer("vit_b32", found)["test"]
    row = published.find("vit_b32", "vision8", method)[0]
    # Each is rounded to two digits of a percent, and so is the row.
    assert sum(found.values()) / 8 == pytest.approx(row.absolute, abs=1.1e-4)
    assert sum(found[t] / own[t] for t in own) / 8 == pytest.approx(row.normalized, abs=1.1e-4)


@pytest.mark.parametrize("suite", published.suites())
def test_tasks_are_those_of_the_suites_yaml(suite):
    listed = [entry["/task@tasks"] for entry in OmegaConf.load(CONF / "suite" / f"{suite}.yaml")
              .defaults if "/task@tasks" in entry]  # fmt: skip
    assert listed == [published.suites()[suite]]
    assert set(published.suites()[suite]) <= set(options("task"))


def test_dtd_of_the_original_checkpoints_saw_its_test_images():
    found = published.normalizer("vit_b32", ["dtd"])
    assert found["test"]["dtd"] > found["val"]["dtd"] + 0.19
    assert "DTD" in published.generations()["original"]


def test_every_generation_of_a_figure_is_explained():
    methods = [*options("method"), "iso_c", "esm", "tall_mask_ties", "consensus_ta"]
    found = {f.generation for c in CELLS for m in methods for f in published.find(*c, m)}
    assert found == set(published.generations())


@pytest.mark.parametrize(
    ("generation", "absolute", "comparable"),
    [
        ("original", 0.8586, True),
        ("fixed", 0.8322, True),
        ("finetune", 0.8586, False),
        # Anybody's checkpoints are called so: two of them need not be the same.
        ("other", 0.8586, False),
        ("fixed, original", 0.8586, False),
        ("unknown", 0.8586, False),
    ],
)
def test_only_the_same_named_checkpoints_are_comparable(generation, absolute, comparable):
    figures = published.find("vit_b32", "vision8", "tsv_merge")
    figure, same = published.choose(figures, generation)
    assert (figure.absolute, same) == (absolute, comparable)
    assert published.choose([], generation) == (None, False)


def test_figures_are_of_the_papers_knobs():
    assert published.other_knobs("tsv_merge", {"rank_fraction": None, "polar": "svd"}) == {}
    assert published.other_knobs("tsv_merge", {"rank_fraction": 0.1}) == {"rank_fraction": None}
    assert published.other_knobs("ties", {"density": 1, "merge": "mean"}) == {"density": 0.2}
    assert published.other_knobs("zero_shot", {}) == {}


@pytest.mark.parametrize("method", options("method"))
def test_the_knobs_of_figures_are_knobs_of_the_method(method):
    node = OmegaConf.to_container(OmegaConf.load(CONF / "method" / f"{method}.yaml"))
    expected = published.other_knobs(method, dict.fromkeys(node, "changed"))
    if expected.get("split") == "test":  # theirs saw test images, which ours never does unasked
        assert node["split"] == "val" and not node["transductive"]
        node["split"] = "test"
    assert expected == {name: node[name] for name in expected}, "by default they are the paper's"
    assert published.other_knobs(method, node) == {}


@pytest.mark.parametrize(("experiment", "table"), [
    ("table_2", {"zero_shot", "weight_average", "task_arithmetic", "consensus_ta", "tsv_merge",
                 "individual"}),
    ("table_3", {"zero_shot", "tall_mask_ties", "tsv_compress", "individual"}),
    ("ablation", {"tsv_low_rank", "tsv_interference_only", "tsv_merge", "individual"}),
])  # fmt: skip
def test_experiments_run_the_cells_of_the_papers_tables(experiment, table):
    node = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    swept = {name: text.split(",") for name, text in node.hydra.sweeper.params.items()}
    assert swept["backbone"] == list(published.backbones())
    assert swept["suite"] == list(published.suites())
    assert set(swept["method"]) == (table & set(options("method"))) | (
        {"ties"} if experiment == "table_2" else set()
    )
    for group, names in swept.items():
        assert set(names) <= set(options(group))
    assert swept["method"][0] == "individual", "the others are divided by it"
    assert list(swept) == ["backbone", "suite", "method"], "methods change fastest"


def test_published_normalizer_names_what_it_lacks():
    with pytest.raises(ValueError, match="'mini' is published; .*vit_b16.*normalizer=own"):
        published.normalizer("mini", ["cars"])
    with pytest.raises(ValueError, match="1 of 2 tasks, first 'digits'"):
        published.normalizer("vit_b32", ["cars", "digits"])
    source = published.normalizer_source()
    assert published.is_published(source) and "original" in source
    assert not published.is_published("each task's own checkpoint (fixed), same test images")


def test_figures_are_shown_as_their_source_prints_them():
    """76.60 has a digit that floats have lost; 76.6 of another source has not."""
    for method, name, text in (("weight_average", "normalized", "76.60"),
                               ("ties", "absolute", "79.7"), ("tsv_low_rank", "absolute", "-"),
                               ("tsv_low_rank", "normalized", "79.6")):  # fmt: skip
        assert as_printed(published.find("vit_b16", "vision8", method)[0], name) == text


def test_no_figure_has_more_digits_than_its_source_is_said_to_print():
    for table in yaml.safe_load(published.FILE.read_text())["averages"]:
        numbers = [x for row in table["rows"].values() for cells in row.values()
                   for cell in cells if cell for x in cell if x is not None]  # fmt: skip
        assert max(len(str(float(x)).split(".")[1]) for x in numbers) == table["digits"]
