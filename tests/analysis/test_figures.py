"""Figures of an analysis: they draw the json's numbers, and no texts overlap or stick out."""

import made_up.analyses
import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex
from stand_ins.boxes import overlapping, texts_of

from tsv_bench.analysis.depth import MAX_KINDS
from tsv_bench.analysis.figures import (
    TEXT,
    plot_cosines,
    plot_effective_rank,
    plot_energy,
    plot_interference,
    save_analysis,
)
from tsv_bench.report.plots.style import COLORS, NothingToPlot

PLOTS = [plot_interference, plot_effective_rank, plot_energy, plot_cosines]


# By depth it matters which layers there are, elsewhere only how many tasks.
OF_TASKS = ["clip", "large", "towers", "llama", "one task"]


@pytest.mark.parametrize(
    ("plot", "network"),
    [(plot, network) for plot in PLOTS for network in made_up.analyses.NETWORKS
     if plot in (plot_interference, plot_effective_rank) or network in OF_TASKS],
)  # fmt: skip
def test_texts_are_inside_and_apart_and_the_figure_fits_a_page(plot, network):
    records = made_up.analyses.records(network)
    with rc_context(TEXT):
        if network == "one task" and plot in (plot_interference, plot_cosines):
            with pytest.raises(NothingToPlot, match="there is one task"):
                plot(records)
            return
        figure = plot(records)
    texts = list(texts_of(figure))
    assert len(texts) > 5 and figure.get_figwidth() <= 7.1
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    assert not overlapping(texts)


def drawn(axes):
    """Return colour -> depth -> value of the lines."""
    return {
        to_hex(line.get_color(), keep_alpha=False).upper(): dict(
            zip(line.get_xdata(), line.get_ydata(), strict=True)
        )
        for line in axes.lines
    }


def test_lines_are_the_kinds_interference_by_depth():
    records = made_up.analyses.records("clip")
    figure = plot_interference(records)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["attn.in_proj", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"]
    raw, outside, merged, below = figure.axes
    for key, axes in (("raw", raw), ("merged", merged)):
        for kind, color in zip(labels, COLORS, strict=False):
            expected = {
                layer["depth"]: layer["matrices"][0]["interference"][key]
                for layer in records["layers"]
                if layer["kind"] == kind
            }
            assert drawn(axes)[color] == pytest.approx(expected) and len(expected) == 4
    values = [line.get_ydata()[0] for line in outside.lines]
    names = [label.get_text() for label in below.get_xticklabels()]
    assert names == ["positional\nembedding", "proj"]
    alone = [x["matrices"][0]["interference"]["raw"] for x in records["layers"] if not x["stack"]]
    assert values == pytest.approx(alone)


def test_of_many_kinds_the_median_is_drawn():
    records = made_up.analyses.records("experts")
    (axes,) = plot_effective_rank(records).axes
    own = [
        [np.median(m["effective_rank"]) / 10 for x in records["layers"] if x["depth"] == depth
         for m in x["matrices"]] for depth in range(2)
    ]  # fmt: skip
    assert len(own[0]) == 35 > MAX_KINDS
    [line] = drawn(axes).values()
    assert list(line.values()) == pytest.approx([np.median(kinds) for kinds in own])


def test_energy_is_the_median_of_the_matrices_and_the_kept_share_is_marked():
    records = made_up.analyses.records("llama")
    figure = plot_energy(records)
    for task, axes in enumerate(figure.axes):
        energy = [m["energy"][task] for x in records["layers"] for m in x["matrices"]]
        middle = next(line for line in axes.lines if line.get_color() == COLORS[0])
        np.testing.assert_allclose(middle.get_ydata(), np.median(energy, axis=0))
        np.testing.assert_allclose(middle.get_xdata() ** 2, records["energy_shares"])
        assert axes.get_title() == records["tasks"][task]
        assert any(line.get_xdata()[0] == pytest.approx(0.5**0.5) for line in axes.lines)


def test_maps_are_the_cosines_without_the_diagonal_and_share_a_scale():
    records = made_up.analyses.records("clip", unchanged=(2,))
    left, right, vectors = (axes.images[0] for axes in plot_cosines(records).axes[:3])
    spaces = records["overall"]["subspace_cosine_of_tasks"]
    for image, rows in (
        (left, spaces["left"]),
        (right, spaces["right"]),
        (vectors, records["task_vectors"]["cosine"]),
    ):
        expected = np.array(rows, dtype=float)
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), expected)
        assert np.isnan(expected[2]).all() and np.nanmax(expected) <= image.get_clim()[1]
    assert left.get_clim() == right.get_clim()


def test_captions_name_every_figure_and_what_is_left_out(tmp_path):
    paths, left_out = save_analysis(made_up.analyses.records("one matrix"), tmp_path)
    text = (tmp_path / "figures.md").read_text()
    assert left_out == [] and len(paths) == 8 and all(path.stat().st_size for path in paths)
    assert all(f"]({path.name})" in text for path in paths if path.suffix == ".png")
    # Ranks of 5, and sides of 12 and 10.
    assert "Random subspaces of these ranks have about 0.42 and 0.5." in text
