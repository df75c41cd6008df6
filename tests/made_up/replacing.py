"""What processes do that are killed while they hold or write files."""

import time
from pathlib import Path

from tsv_bench.files.atomic import NEW, replace_atomically, replace_files, temporary_beside
from tsv_bench.files.claim import claimed
from tsv_bench.files.holding import hold


def hold_for_ever(name):
    Path(name).touch()
    hold(Path(name))
    Path("said").touch()
    time.sleep(3600)


def claim_for_ever(name):
    with claimed(Path(name)):
        Path("said").touch()
        time.sleep(3600)


def write_for_ever(name):
    def write(path):
        path.write_text("half")
        Path("said").touch()
        time.sleep(3600)

    replace_atomically(Path(name), write)


def replace(output, names):
    """Replace the files of these names in a folder by new ones: weights, index and more."""
    with temporary_beside(Path(output)) as temporary:
        (temporary / NEW).mkdir()
        for name in ("weights", "index", "more"):
            (temporary / NEW / name).write_text("new")
        replace_files(temporary, Path(output), names)
