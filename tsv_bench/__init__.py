"""A benchmark of model merging around Task Singular Vectors: the map of its packages.

What tsv-bench does: ``cli`` makes tasks (``data``), a backbone (``models``), a source of
``checkpoints`` and a method from the configuration in conf/. ``state_dicts`` reads the weights;
fine-tuned minus pretrained weights are ``task_vectors``. A method of ``methods`` turns them into
the vector that each task is served. ``benchmark`` adds alpha times this vector to the pretrained
weights, measures accuracies and writes a Run. ``report`` makes tables, figures and a page of Runs.
tsv-merge takes the same path from files to files, by ``merging`` in place of ``benchmark``.

From the bottom up; a package imports only from packages above it in this list:

    process        cores it may use, extras that are installed, signals that end it
    wording        columns, escapes, nearest names, commands to paste
    files          files whole or not there; hashes, stamps, free space
    provenance     commit, versions, machine and memory behind a number
    scores         counts of correct images, accuracies, normalized accuracies
    faces          packages whose names are imported when they are wanted
    bars           progress bars, and the lines that they are in a file
    linalg         matrices only: singular vectors, polar factors
    task_vectors   named layers, read and merged one at a time
    methods        what tasks are served, entrywise or matrixwise, learned, evolved, routed, ...
    hub            what is needed from the Hugging Face hub, and fetching it
    state_dicts    weights on disk, in every format that is read or written
    data           tasks and their images
    models         all that runs a network: backbones, heads, training, accuracy
    checkpoints    one fine-tuned model a task, and where it comes from
    observation    statistics of images through the networks of tasks, for methods that see some
    merging        tsv-merge: checkpoint files in, merged files out
    benchmark      a method on a suite makes one Run
    report         Runs make tables, text, figures and a page
    analysis       tsv-analyze: how much checkpoints interfere
    cli            the commands, merge() and evaluate() in memory; only this package knows Hydra
"""

from typing import TYPE_CHECKING

from tsv_bench.faces import late

if TYPE_CHECKING:
    from tsv_bench.cli.work.evaluate import evaluate
    from tsv_bench.cli.work.in_memory import merge

__all__ = ["evaluate", "merge"]
__getattr__ = late(__name__, "cli.work.in_memory", "cli.work.evaluate")
__version__ = "0.1.0"


def __dir__() -> list[str]:
    """Return all names, also those that are imported when they are wanted, for help()."""
    return sorted({*globals(), *__all__})
