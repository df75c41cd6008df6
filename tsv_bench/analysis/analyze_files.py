"""The path from checkpoint files to analysis.json and figures.

from tsv_bench.analysis import analyze
analyze("base.safetensors", {"a": "a.pt", "b": "b/"}, "analysis")
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tsv_bench import bars, provenance
from tsv_bench.analysis.figure_files import figure_names
from tsv_bench.analysis.measures import Settings, chosen_layers, measure
from tsv_bench.analysis.records import as_text, make_records
from tsv_bench.files import check_place
from tsv_bench.files.atomic import (
    NEW,
    make_folder,
    rename_aside,
    replace_files,
    sweep,
    temporary_beside,
)
from tsv_bench.files.claim import claimed
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.inputs import check_inputs, open_inputs

log = logging.getLogger(__name__)

FILE = "analysis.json"
NAMES = (FILE, *figure_names())  # of all files that an analysis writes
ROOM = 20_000_000  # bytes to have free; an analysis of twenty ViT-L/14 takes a fifth of it


@dataclass(frozen=True, kw_only=True)
class Analyzed:
    """The result of an analysis: its measures, the files written, time and memory."""

    records: dict[str, Any]  # content of the json
    path: Path  # of the json
    figures: list[Path]
    seconds: float
    peak_memory: int  # bytes, the largest resident memory of the process so far


def analyze(
    pretrained: Path | str,
    finetuned: Mapping[str, Path | str],
    output: Path | str,
    settings: Settings = Settings(),  # noqa: B008, it is frozen
    *,
    figures: bool = True,
    overwrite: bool = False,
    device: str = "cpu",
    factors: FactorCache | None = None,
    choices: Choices = Choices(),  # noqa: B008, it is frozen
    progress: bool = True,
) -> Analyzed:
    """Measure how checkpoints interfere; write ``output``/analysis.json and the figures.

    ``pretrained`` is a checkpoint, ``finetuned`` a checkpoint for each task, ``choices`` says what
    becomes of entries that not all have. Raises ValueError or OSError if an
    argument or a file is wrong, before any long computation.
    """
    started = time.monotonic()
    output = Path(output)
    choices = replace(choices, measured=True)
    inputs = open_inputs(pretrained, finetuned, device, choices=choices)
    layers = chosen_layers(inputs.vectors, settings)
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={output} is a file. Name a folder: it will hold {FILE}.")
    check_place(output, ROOM)
    with claimed(output.resolve() / FILE):
        _check_output(output, overwrite)
        total = len(inputs.states)
        with bars.bar(total=total, desc="checking", unit="file", disable=not progress) as bar:
            inputs, hashes = check_inputs(inputs, factors, bar.update)
        bar = partial(
            bars.bar, total=len(layers), desc="measuring", unit="layer", disable=not progress
        )
        measured = list(bar(measure(inputs.vectors, settings)))
        if not any(layer.matrices for layer in measured):
            raise ValueError(
                f"no task changed any of the matrices among the {len(layers)} layers, first "
                f"{layers[0]!r}: they have no singular vectors. Choose others with layers=."
            )
        records = {
            "about": {
                "settings": asdict(settings) | {"device": device},
                "inputs": hashes,
                "commit": provenance.commit(),
                "versions": provenance.versions(),
                "machine": provenance.machine(device),
            },
            **make_records(measured, list(finetuned)),
        }
        drawn = _write(records, output, figures, overwrite)
    return Analyzed(
        records=records,
        path=output / FILE,
        figures=drawn,
        seconds=time.monotonic() - started,
        peak_memory=provenance.peak_memory(),
    )


def _check_output(output: Path, overwrite: bool) -> None:
    """Check that nothing in the output folder is in the way.

    Raises ValueError if it has an analysis already, or files of somebody else of the same names.
    """
    sweep(output)
    if (output / FILE).exists():
        if not overwrite:
            raise ValueError(
                f"{output / FILE} is there already. Name another folder, or replace it with "
                f"overwrite=true."
            )
    elif strange := [name for name in NAMES if (output / name).exists()]:
        raise ValueError(
            f"{output / strange[0]} is there, of no analysis, and would be replaced. Move it, or "
            f"name another folder."
        )


def save_analysis(records: dict[str, Any], folder: Path) -> tuple[list[Path], list[str]]:
    """Draw the figures: see `figures.save_analysis`."""
    from tsv_bench.analysis import figures  # here: it takes matplotlib

    return figures.save_analysis(records, folder)


def _write(records: dict[str, Any], output: Path, figures: bool, overwrite: bool) -> list[Path]:
    """Put the json and the figures in place together; return the figures' paths.

    An older analysis' figures go, since they would not fit. Raises FileExistsError if an analysis
    has appeared meanwhile; what was measured then stands beside it.
    """
    make_folder(output)
    with temporary_beside(output / FILE) as temporary:
        new = temporary / NEW
        new.mkdir()
        drawn, left_out = save_analysis(records, new) if figures else ([], [])
        for sentence in left_out:
            log.info(sentence)
        (new / FILE).write_text(as_text(records), encoding="utf-8")
        try:
            replace_files(temporary, output, NAMES if overwrite else ())
        except FileExistsError:
            raise rename_aside(new, output.resolve()) from None
    return [output / path.name for path in drawn]
