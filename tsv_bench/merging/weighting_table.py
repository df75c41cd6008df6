"""The table of how a method has weighted blocks."""

from tsv_bench.methods.entrywise.lata_published import Weighting
from tsv_bench.wording.columns import align


def render_weighting(weighting: Weighting) -> str:
    """Return a row for each block with every task's similarity and weight.

    A dash stands where neither instruction tuning nor fine-tuning changed the block.
    """
    tasks = list(weighting.weights)
    units = list(dict.fromkeys(unit for own in weighting.similarities.values() for unit in own))
    head = ["\nblock"]
    for task in tasks:
        head += [f"{task}\nsimilarity", "\nweight"]
    rows = [head]
    for unit in units:
        row = [unit]
        for task in tasks:
            similarity = weighting.similarities[task].get(unit)
            weight = weighting.weights[task].get(unit)
            row += ["-" if similarity is None else f"{similarity:.6f}",
                    "-" if weight is None else f"{weight:.3f}"]  # fmt: skip
        rows.append(row)
    return align(rows, gap=2)
