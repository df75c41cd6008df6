"""The figure of how blocks were weighted draws its numbers, and no texts overlap or stick out."""

import pytest
from matplotlib import rc_context
from stand_ins.boxes import overlapping, texts_of

from tsv_bench.analysis import weighting_figure
from tsv_bench.analysis.depth import MAX_KINDS
from tsv_bench.analysis.figures import TEXT
from tsv_bench.analysis.weighting_figure import plot_weighting
from tsv_bench.methods.entrywise.lata_published import Weighting


def weighting(tasks=("math", "code"), stacks=("model.layers",), num_blocks=4, tensors=("",)):
    """Similarities close to 1, as a small task's are."""
    units = [
        f"{stack}.{block}{tensor}"
        for stack in stacks
        for block in range(num_blocks)
        for tensor in tensors
    ]
    similarities = {
        task: {unit: 1 - 1e-4 * (i + t) / len(units) for i, unit in enumerate(units)}
        for t, task in enumerate(tasks)
    }
    weights = {task: {u: i / len(units) for i, u in enumerate(units)} for task in tasks}
    return Weighting(similarities, weights)


CASES = {
    "Llama": weighting(num_blocks=32),
    "T5": weighting(stacks=("encoder.block", "decoder.block")),
    "tensors": weighting(tensors=(".attn.weight", ".mlp.weight", ".ln.bias")),
    "one block": weighting(num_blocks=1, tasks=("math",)),
    "many tasks": weighting(tasks=[f"task{i}" for i in range(MAX_KINDS + 1)]),
}


@pytest.mark.parametrize("case", CASES)
def test_texts_are_inside_and_apart_and_the_figure_fits_a_page(case):
    with rc_context(TEXT):
        figure = plot_weighting(CASES[case])
    texts = list(texts_of(figure))
    assert len(texts) > 5 and figure.get_figwidth() <= 7.1
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    assert not overlapping(texts)


def test_a_line_is_a_tasks_similarity_or_weight_by_depth():
    found = weighting()
    above, below = plot_weighting(found).axes
    for axes, numbers in ((above, found.similarities), (below, found.weights)):
        assert [line.get_label() for line in axes.lines] == list(numbers)
        for line, own in zip(axes.lines, numbers.values(), strict=True):
            assert list(line.get_xdata()) == [0, 1, 2, 3]
            assert list(line.get_ydata()) == list(own.values())


def test_of_the_tensors_of_a_block_the_median_is_drawn_with_a_band():
    found = CASES["tensors"]
    above, _ = plot_weighting(found).axes
    own = list(found.similarities["math"].values())
    assert list(above.lines[0].get_ydata()) == own[1::3]
    [path] = above.collections[0].get_paths()
    low, high = path.vertices[:, 1].min(), path.vertices[:, 1].max()
    assert (low, high) == (pytest.approx(min(own)), pytest.approx(max(own)))


def test_many_tasks_are_one_median():
    above, _ = plot_weighting(CASES["many tasks"]).axes
    [line] = above.lines
    assert line.get_label() == "median of 15 tasks, and the band of all"


@pytest.mark.parametrize(("end", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_file_is_what_its_name_says(tmp_path, end, start):
    path = tmp_path / f"weights{end}"
    assert weighting_figure.save(weighting(), path) == f"figure of 2 tasks' blocks -> {path}"
    assert path.read_bytes().startswith(start)


def test_without_blocks_there_is_no_figure(tmp_path):
    found = weighting_figure.save(weighting(num_blocks=0), tmp_path / "weights.png")
    assert found == "No figure: no block was weighted." and not list(tmp_path.iterdir())
