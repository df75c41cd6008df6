"""Fine-tuning in two processes of torchrun on the CPU, and in one alone."""

import contextlib
import json
import signal

import made_up.trainings
import pytest
import torch
from made_up.finetuning import SETTINGS, source
from made_up.tasks import backbone, load, task
from made_up.trainings import NUM_STEPS
from safetensors.torch import load_file
from stand_ins.commands import small
from stand_ins.processes import Started

from tsv_bench.checkpoints.checkpoint import load_record
from tsv_bench.models import finetuning
from tsv_bench.models.distributed import ALONE, join_group, take_own_gpu

TRAININGS = ("whole", "parts", "float16")


def said(*outputs):
    """Training and rank to what that process said of it."""
    lines = [json.loads(s) for out in outputs for s in out.splitlines() if s.startswith("{")]
    return {(line["training"], line["rank"]): line for line in lines}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two processes made, and said; they were killed before the last's eleventh step.

    This process does what torchrun's does, but for seconds of imports.
    """
    folder = tmp_path_factory.mktemp("torchrun")
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    names, hold = [*TRAININGS, "killed"], (finetuning.__name__, "batch_rows", 3 * NUM_STEPS + 11)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        processes = []
        for rank in (0, 1):
            for name, value in (joined | {"RANK": str(rank), "LOCAL_RANK": str(rank)}).items():
                patch.setenv(name, value)
            started = Started(folder, made_up.trainings.train, *names, hold=hold)
            processes.append(stack.enter_context(started))
        for process in processes:
            process.wait_until_held()
        for process in processes:  # the one that writes first
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.err
    return folder, said(*(process.out for process in processes))


@pytest.fixture(scope="module")
def resumed(trained):
    """What they said when torchrun started them again, and what the command printed after it."""
    folder, _ = trained
    assert len(list((folder / "killed").rglob("*.resume"))) == 1
    assert not list((folder / "killed").rglob("*.safetensors"))
    with Started(
        folder, made_up.trainings.torchrun, "task=signs", *small("task", ["signs"])
    ) as run:
        assert run.wait() == 0, run.err
    return said(run.out), run.err


@pytest.mark.slow
@pytest.mark.parametrize("training", ["whole", "parts"])
def test_two_processes_make_the_weights_of_one(trained, training, tmp_path):
    folder, _ = trained
    alone = load_file(source(tmp_path).checkpoint(backbone(), task(), load).path)
    [path] = (folder / training).rglob("tints-*.safetensors")
    for name, before in backbone().pretrained.items():
        moved = (alone[name] - before).norm()
        assert (load_file(path)[name] - alone[name]).norm() < 1e-4 * moved
    record = load_record(path)
    assert record["processes"] == 2 and record["recipe"]["batch_size"] == SETTINGS.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS)
def test_both_have_the_same_bits_and_only_the_first_writes(trained, training):
    _, said = trained
    first, second = said[training, 0], said[training, 1]
    assert first["hashes"] == second["hashes"] and len(first["hashes"]) == 1
    assert first["sha256"] == second["sha256"]
    assert first["steps"] == second["steps"] == list(range(NUM_STEPS))
    assert second["wrote"] == [] and first["wrote"]


@pytest.mark.slow
def test_killed_processes_are_resumed_to_the_same_bits(trained, resumed):
    folder, before = trained
    found, _ = resumed
    for rank in (0, 1):
        assert found["killed", rank]["steps"] == list(range(10, NUM_STEPS))
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
    assert record["processes"] == 2 and record["scores"]["test"]["total"] == 25
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
