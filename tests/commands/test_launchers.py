"""Launchers of Hydra's plugins, whole: the Runs and the table are those of a sweep in one process.

Each starts interpreters, which import for seconds. Ray's is in test_launchers_ray.py.
"""

from importlib import metadata

import pytest
from stand_ins import own_methods
from stand_ins.commands import SMALL, begin_from, numbers, tsv

pytestmark = pytest.mark.slow
LINE = ["--multirun", "method=weight_average,task_arithmetic", "method.alphas=[0.5]", *SMALL]

# A job of it sends its own process a signal while it merges: the first time, then it goes on.
CODE = """
import os
import signal
from pathlib import Path

from tsv_bench.methods import weight_average


def ended(vectors, *, by):
    seen, jobs = Path(f"{by}.seen"), [*Path("runs/sweeps").glob("*/*.log")]
    if jobs and not seen.exists():
        seen.touch()
        os.kill(os.getpid(), getattr(signal, by))
    return weight_average(vectors)
"""
YAML = """
name: my_method
label: Ended
alphas: [1.0]
by: SIGTERM
serve: {_target_: my_method.ended, _partial_: true, by: "${..by}"}
"""
OWN = ["--config-dir", "my_conf", "--multirun", "method=my_method", *SMALL]


def needs(plugin, extra):
    there = bool([*metadata.distributions(name=plugin)])
    return pytest.mark.skipif(not there, reason=f"needs tsv_bench[{extra}]")


def rows(out):
    """The table that was printed, without seconds."""
    lines = (line.split() for line in out.split("wrote")[0].splitlines())
    table = [
        words for words in lines if words[:2] in (["Weight", "average"], ["Task", "Arithmetic"])
    ]
    return [words[:-3] + words[-2:] for words in table if words[2] != "-"]  # no differences


@needs("hydra-joblib-launcher", "joblib")
def test_joblib_gives_the_runs_and_the_table_of_one_process(fine_tuned, tmp_path):
    here, there = (begin_from(fine_tuned, tmp_path / name) for name in ("here", "there"))
    alone = tsv(here, "bench", *LINE)
    result = tsv(there, "bench", "hydra/launcher=cores", *LINE)
    assert alone.code == result.code == 0, result.err
    assert len(rows(result.out)) == 2 and rows(result.out) == rows(alone.out)
    for method in ("weight_average", "task_arithmetic"):
        assert numbers(there, method) == numbers(here, method)


@needs("hydra-submitit-launcher", "slurm")
def test_submitit_queues_again_what_makes_room_and_ends_what_is_to_end(
    fine_tuned, tmp_path, monkeypatch
):
    """As Slurm does: SIGUSR2 where submitit queues again, SIGTERM where it does not."""
    # Seconds that submitit waits for the file of an ended job: a slow disk may still hide it.
    monkeypatch.setattr("submitit.Job._results_timeout_s", 0)
    folder = own_methods.write(begin_from(fine_tuned, tmp_path), CODE, YAML)
    line = ["hydra/launcher=submitit_local", "method.by=SIGUSR2,SIGTERM", *OWN]
    result = tsv(folder, "bench", *line)
    assert result.code == 1 and "\nEnded " in result.out
    assert "1 of 2 failed:\n  method.by=SIGTERM: ended by SIGTERM. What was fin" in result.err
    [log] = (folder / "runs" / "sweeps").glob("*/0.log")
    assert log.read_text().count(": tsv-bench ") == 2  # it began again

    again = tsv(folder, "bench", *line[1:])  # without the launcher: that is seconds less
    assert again.code == 0, again.err
    assert "Ended (by=SIGUSR2)" in again.out and "Ended (by=SIGTERM)" in again.out
