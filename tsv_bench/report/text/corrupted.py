"""The table of accuracies on corrupted images: a row a method, a column a corruption."""

from tsv_bench.report.tables.generalization import corruptions, severity
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.numbers import made_of, with_interval
from tsv_bench.report.text.sheet import Sheet


def corrupted_sheet(table: Table) -> Sheet | None:
    """Return the table of corrupted images as texts; None if no row has any."""
    names = corruptions(table.rows)
    if not names:
        return None
    rows = []
    for row in table.rows:
        found = [row.absolute, *(row.corrupted.get(name) for name in ("", *names))]
        rows.append([row.label, *("-" if e is None else with_interval(e) for e in found)])
    return Sheet(
        title=f"{table.title}: corrupted images, severity {severity(table.rows)}",
        caption=f"Percent, the mean over {len(table.tasks)} tasks of absolute accuracy, with half "
        f"a 95% interval over {table.num_images:,} test images. Corrupted: the mean over the "
        f"{len(names)} corruptions. Merged, and alpha chosen, on images as they are; "
        f"{made_of(table.runs)}",
        header=["method", "as they are", "corrupted", *(name.replace("_", " ") for name in names)],
        rows=rows,
    )
