"""Threads and devices: what is asked for, what is there, and what is said of the difference."""

import pytest
import torch
from omegaconf import OmegaConf

from tsv_bench.cli.work import machine
from tsv_bench.cli.work.machine import Machine, chosen_devices, chosen_threads, one_device


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("four_cores")
def test_threads_are_the_cores_unless_less_is_asked_for(monkeypatch):
    assert chosen_threads(None) == 4 and chosen_threads(3) == 3
    for value, expected in {"1": 1, "9": 4, "0": 4, "many": 4, "": 4}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert chosen_threads(None) == expected
        assert chosen_threads(2) == 2  # what is asked for counts more


@pytest.mark.usefixtures("four_cores")
def test_more_threads_than_cores_are_capped_and_it_is_said(caplog):
    assert chosen_threads(64) == 4
    assert "threads=64: this process may use 4 cores, so it takes 4." in caplog.text
    caplog.clear()
    assert chosen_threads(4) == 4 and not caplog.text


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", True])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(ValueError, match="at least 1. Leave it null for the 4 cores that this"):
        chosen_threads(threads)


def test_a_device_that_is_not_there_is_refused_and_those_present_are_named():
    for device in ("cuda:7", "gpu", "cpu,cuda:7"):
        name = device.split(",")[-1]
        with pytest.raises(ValueError, match=f"'{name}' is none that torch can .* are: cpu"):
            chosen_devices(device)


def test_all_gpus_or_those_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch, "empty", lambda *args, device: None)
    assert chosen_devices(None) == chosen_devices("cuda") == ("cuda:0", "cuda:1", "cuda:2")
    assert chosen_devices("cuda:2, cuda:0") == ("cuda:2", "cuda:0")
    assert chosen_devices("cuda:1") == ("cuda:1",) and chosen_devices("cpu") == ("cpu",)
    with pytest.raises(ValueError, match="several kinds.*There are: cpu, cuda:0, cuda:1, cuda:2"):
        chosen_devices("cpu,cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen_devices(None) == chosen_devices("cuda") == ("cuda",)


def test_one_network_runs_on_the_first_device_and_merges_on_all():
    several = Machine(("cuda:1", "cuda:0"), named=True)
    assert (several.device, several.all_devices) == ("cuda:1", "cuda:1,cuda:0")
    with pytest.raises(ValueError, match="device=cuda:1,cuda:0 names 2 devices, and this command"):
        one_device(several)
    assert one_device(Machine(("cuda:0", "cuda:1"))) == "cuda"
    assert one_device(Machine(("cuda:1",))) == "cuda:1"


def test_setting_up_applies_threads(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    machine.set_up_machine(OmegaConf.create({"threads": 1, "device": "cpu"}))
    assert set_to == [1] and not torch.backends.cudnn.allow_tf32
