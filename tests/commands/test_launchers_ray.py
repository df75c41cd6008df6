"""A Ray cluster of two machines, whole: Runs and table of one process, whatever is lost on the way.

The machines and the sweeps are processes that import for seconds.
"""

from importlib import metadata

import pytest
from stand_ins import own_methods, ray_cluster
from stand_ins.commands import SMALL, begin_from, tsv

from tsv_bench.benchmark.runs import find_runs, load_correct

there = [*metadata.distributions(name="hydra-ray-launcher")]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not there, reason="needs tsv_bench[ray]")]

CODE = """
import os
import signal
import sys
import time
from pathlib import Path

from tsv_bench.methods import weight_average


def serve(vectors, *, does):
    if "signs" not in vectors:  # the method is only tried out
        return weight_average(vectors)
    if "ray" in sys.modules:  # in a job of Ray's, not in the process of the tests
        began = Path(f"{does}.began")
        again = began.exists()
        with began.open("a") as file:
            print(os.getpid(), file=file)
        if does == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "is_told" and not again:
            os.kill(os.getpid(), signal.SIGTERM)
        while does.startswith("waits") and not Path(f"{does}.ends").exists():
            time.sleep(0.05)
    if does == "fails":
        raise ValueError("no such weights")
    return weight_average(vectors)
"""
YAML = """
name: my_method
label: Own
alphas: [1.0]
does: nothing
serve: {_target_: my_method.serve, _partial_: true, does: "${..does}"}
"""
OWN = ["--config-dir", "my_conf", "--multirun", "method=my_method", *SMALL]


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster.two_machines() as cluster:
        yield cluster


def begin(fine_tuned, folder):
    return own_methods.write(begin_from(fine_tuned, folder), CODE, YAML)


def rows(out):
    """The table that was printed, without seconds."""
    lines = (line.split() for line in out.split("wrote")[0].splitlines())
    return [words[:-3] + words[-2:] for words in lines if words[:1] == ["Own"] and len(words) > 6]


def numbers(folder):
    """What two computations of the same Runs must share, to the last bit."""
    return {
        run.fingerprint: (run.test, run.val, run.checkpoints,
                          {task: hits.tolist() for task, hits in load_correct(path).items()})
        for path, run in find_runs(folder / "runs")
    }  # fmt: skip


def began(folder, does):
    """The processes that have begun a job, in their order. It ends only with them."""
    path = folder / f"{does}.began"
    return [*dict.fromkeys(map(int, path.read_text().split()))] if path.exists() else []


def test_two_machines_make_what_one_process_makes_and_list_what_fails(
    fine_tuned, tmp_path, cluster
):
    alone, folder = (begin(fine_tuned, tmp_path / name) for name in ("alone", "folder"))
    well = "is_told,nothing"
    line = [f"method.does=dies,fails,{well}", "hydra.launcher.ray.remote.max_retries=1", *OWN]
    with cluster.start(folder, *line) as process:
        here = tsv(alone, "bench", f"method.does={well}", *OWN)
        out, err = process.communicate(timeout=ray_cluster.LONGEST)
    assert [len(began(folder, does)) for does in ("dies", "is_told", "nothing")] == [2, 2, 1], err
    assert len(rows(out)) == 2 and rows(out) == rows(here.out)
    assert numbers(folder) == numbers(alone)
    assert process.returncode == 1
    failed = err[err.index("2 of 4 failed:") :].splitlines()
    assert failed[1].startswith("  method.does=dies: lost by Ray: ")
    assert failed[3].startswith("  method.does=fails: ") and "no such weights" in failed[3]
    assert failed[4].startswith("    again by: tsv-bench --config-dir my_conf method.does=fails ")


def test_what_is_finished_outlives_a_lost_machine_and_the_lost_head(fine_tuned, tmp_path, cluster):
    folder = begin(fine_tuned, tmp_path)
    line = ["method.does=nothing,waits,waits_too", *OWN]
    with cluster.start(folder, *line) as process:
        ray_cluster.until(lambda: began(folder, "waits") and began(folder, "waits_too"), process)
        lost, kept = "waits", "waits_too"
        if not cluster.second.has(*began(folder, lost)):
            lost, kept = kept, lost
        assert cluster.second.has(*began(folder, lost)) and cluster.first.has(*began(folder, kept))
        cluster.second.lose()
        (folder / f"{kept}.ends").touch()
        ray_cluster.until(lambda: len(began(folder, lost)) == 2, process)
        assert cluster.first.has(began(folder, lost)[1])
        cluster.first.lose()
        out, err = process.communicate(timeout=ray_cluster.LONGEST)
    assert process.returncode == 1 and len(rows(out)) == 2, err
    assert "tsv-bench: error: the head of the Ray cluster, " in err
    assert f"1 of 3 failed:\n  method.does={lost}: did not end." in err
    finished = numbers(folder)

    again = tsv(folder, "bench", *line)
    assert again.code == 0, again.err
    assert len(rows(again.out)) == 3 and finished.items() <= numbers(folder).items()
    assert [len(began(folder, does)) for does in ("nothing", kept, lost)] == [1, 1, 2]
