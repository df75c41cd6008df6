"""Fine-tuning in two processes of torchrun on the CPU, and in one alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up.tasks
import pytest
import torch
from made_up.finetuning import SETTINGS, source
from made_up.tasks import backbone, load, task
from safetensors.torch import load_file
from stand_ins.commands import small

from tsv_bench.checkpoints.checkpoint import load_record
from tsv_bench.models.distributed import ALONE, join_group, take_own_gpu

# Each process prints what it did as one line of json. Audit events of the interpreter tell what it
# wrote: files opened for writing, folders made, files renamed.
SCRIPT = """
import hashlib, json, os, sys, time, torch
from dataclasses import replace
from pathlib import Path

written, steps = [], []

def audit(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.mkdir", "os.rename"):
        written.append(str(args[0]))

sys.addaudithook(audit)
torch.set_num_threads(1)
from made_up.tasks import backbone, load, task
from made_up.finetuning import SETTINGS, source
from tsv_bench.checkpoints import on_demand
from tsv_bench.models import distributed, finetuning

resumed = sys.argv[1] == "resumed"
group = distributed.join_group("cpu")
inside = str(Path.cwd())

def watched(num_rows, batch_size, step, seed):
    steps.append(step)
    if training == "killed" and step == 10 and not resumed:
        Path(f"{group.rank}.pid").write_text(str(os.getpid()))
        time.sleep(600)
    return batch_rows(num_rows, batch_size, step, seed)

def hashed(*args, **settings):
    visual = train_tower(*args, **settings)
    state = torch.cat([tensor.flatten() for tensor in visual.state_dict().values()])
    hashes.append(hashlib.sha256(state.numpy().tobytes()).hexdigest())
    return visual

finetuning.batch_rows, batch_rows = watched, finetuning.batch_rows
on_demand.finetune, train_tower = hashed, on_demand.finetune
runs = {
    "whole": {},
    "parts": {"accumulate": 3},
    "float16": {"precision": "float16"},
}
for training in ("killed", "again") if resumed else (*runs, "killed"):
    steps, hashes, before = [], [], len(written)
    made = source(
        Path("killed" if training == "again" else training),
        finetuning=replace(SETTINGS, **runs.get(training, {})),
        save_every=0 if training == "killed" else 600,
    )
    found = made.checkpoint(backbone(), task(), load)
    own = [path for path in written[before:] if os.path.abspath(path).startswith(inside)]
    seen = {
        "training": training, "rank": group.rank, "steps": steps, "hashes": hashes,
        "sha256": found.sha256, "wrote": own, "processes": group.size,
    }
    sys.stdout.write(json.dumps(seen) + "\\n")
    sys.stdout.flush()

if resumed:  # and then the command, as a process of its own would find it
    from tsv_bench.cli import finetune
    on_demand.finetune, finetuning.batch_rows = train_tower, batch_rows
    sys.argv = ["tsv-finetune", *sys.argv[2:]]
    finetune.main()
"""


def torchrun(folder, *arguments):
    here = Path(made_up.tasks.__file__).parents[1]
    path = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        + [*arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(out):
    """Return by training and rank what that process printed."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {(line["training"], line["rank"]): line for line in lines}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return what two processes made and printed. The last training is killed at step 10."""
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "script.py").write_text(SCRIPT)
    process = torchrun(folder, "script.py", "killed")
    pids = [folder / f"{rank}.pid" for rank in (0, 1)]
    while not all(path.exists() and path.read_text() for path in pids):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(int(pids[0].read_text()), signal.SIGKILL)  # the one that writes; torchrun ends the rest
    out, err = process.communicate()
    assert process.returncode != 0, err
    return folder, said(out)


@pytest.fixture(scope="module")
def resumed(trained):
    """Return what they printed when started again, and what the command prints after that."""
    folder, _ = trained
    assert len(list((folder / "killed").rglob("*.resume"))) == 1
    assert not list((folder / "killed").rglob("*.safetensors"))
    process = torchrun(folder, "script.py", "resumed", "task=signs", *small("task", ["signs"]))
    out, err = process.communicate()
    assert process.returncode == 0, err
    return said(out), err


@pytest.mark.slow
@pytest.mark.parametrize(("training", "changes"), [("whole", {}), ("parts", {"accumulate": 3})])
def test_two_processes_make_the_weights_of_one(trained, training, changes, tmp_path):
    folder, _ = trained
    alone = load_file(source(tmp_path).checkpoint(backbone(), task(), load).path)
    [path] = (folder / training).rglob("tints-*.safetensors")
    for name, before in backbone().pretrained.items():
        moved = (alone[name] - before).norm()
        assert (load_file(path)[name] - alone[name]).norm() < 1e-4 * moved
    record = load_record(path)
    assert record["processes"] == 2 and record["recipe"]["batch_size"] == SETTINGS.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("training", ["whole", "parts", "float16"])
def test_both_have_the_same_bits_and_only_the_first_writes(trained, training):
    _, said = trained
    first, second = said[training, 0], said[training, 1]
    assert first["hashes"] == second["hashes"] and len(first["hashes"]) == 1
    assert first["sha256"] == second["sha256"]
    assert first["steps"] == second["steps"] == list(range(24))
    assert second["wrote"] == [] and first["wrote"]


@pytest.mark.slow
def test_killed_processes_are_resumed_to_the_same_bits(trained, resumed):
    folder, before = trained
    found, _ = resumed
    for rank in (0, 1):
        assert found["killed", rank]["steps"] == list(range(10, 24))
        assert found["killed", rank]["sha256"] == before["whole", rank]["sha256"]
        assert found["again", rank]["steps"] == []  # it is there
    assert found["killed", 1]["wrote"] == found["again", 1]["wrote"] == []
    assert not list(folder.rglob("*.resume"))


@pytest.mark.slow
def test_command_line_fine_tunes_in_two_processes(trained, resumed):
    folder, _ = trained
    _, printed = resumed
    [path] = folder.glob("checkpoints/mini/signs-*.safetensors")
    record = load_record(path)
    assert record["processes"] == 2 and record["scores"]["test"]["total"] == 100
    assert printed.count("% on val") == 1
    assert f"% on test, {path.relative_to(folder)}" in printed


def test_one_process_is_alone():
    assert join_group("cpu") is ALONE and ALONE.is_main
    tensor = torch.ones(3)
    ALONE.all_reduce([tensor])
    assert torch.equal(tensor, torch.ones(3)) and ALONE.broadcast("all") == "all"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:1", "device=cuda:1 is one GPU for all the processes .* device=cuda gives each"),
        ("cuda", r"more processes on this machine than it has GPUs \(1\).* --nproc-per-node=1"),
    ],
)
def test_more_processes_than_gpus_are_refused(device, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=message):
        join_group(device)


def test_every_process_takes_its_own_gpu(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    take_own_gpu()  # not under torchrun
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("0", "1", "2"):  # the third finds none, which is an error if it is to use one
        monkeypatch.setenv("LOCAL_RANK", rank)
        take_own_gpu()
    assert taken == [0, 1]
