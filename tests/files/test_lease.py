"""Leases: one maker at a time, also of processes that see no more of each other than files."""

import json
import logging
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from tsv_bench.files import lease as module
from tsv_bench.files import leased, replace_text
from tsv_bench.files.lease import BEAT, LONGEST, PATIENCE, Lease, LeaseLost


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made+.npz"


@pytest.fixture
def clock(monkeypatch):
    """Whose seconds pass while a process waits; ``then`` is called after each wait."""
    clock = SimpleNamespace(now=0.0, then=lambda: None)

    def sleep(seconds):
        clock.now += seconds
        clock.then()

    monkeypatch.setattr(
        module,
        "time",
        SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep, time=lambda: clock.now),
    )
    return clock


@pytest.fixture
def far(path, monkeypatch):
    """A lease of a process on another machine, which has given one sign of life."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_machine", lambda: "far")
        return Lease(path, 1)


def files(path):
    return sorted(found.name for found in path.parent.iterdir())


def test_who_comes_next_has_the_next_number(path, clock):
    for number in (1, 2, 3):
        with leased(path) as lease:
            assert lease.number == number and lease.is_own
    assert clock.now == 0 and files(path) == [".made+.npz.lease-3"]


def test_a_silent_owner_on_another_machine_is_followed_after_a_while(path, far, clock):
    os.utime(far._file, (0, 0))  # clocks of machines differ: times of files are no matter
    with leased(path) as lease:
        assert PATIENCE < clock.now <= PATIENCE + 2 * LONGEST
        assert lease.number == 2 and lease.is_own and not far.is_own
    assert files(path) == [".made+.npz.lease-2"]


def test_an_owner_that_lives_is_waited_for_however_long(path, far, clock, caplog):
    def live():
        while clock.now > BEAT * far._about["beats"]:
            far._write()
        if clock.now > 20 * PATIENCE:
            far._about["released"] = True

    clock.then = live
    with caplog.at_level(logging.INFO), leased(path):
        assert clock.now > 20 * PATIENCE
    [said] = caplog.messages
    assert said.startswith(f"waiting for process {os.getpid()} on ") and str(path) in said


@pytest.mark.parametrize(
    ("ahead", "said"), [(600, "10 minutes ahead of"), (-300, "5 minutes behi"), (50, None)]
)
def test_clocks_that_are_minutes_apart_are_said_once(
    ahead, said, path, far, clock, caplog, monkeypatch
):
    monkeypatch.setattr(module, "_compared", set())
    far._about["host"] = "node7"

    def live():
        with monkeypatch.context() as patch:
            patch.setattr(module.time, "time", lambda: clock.now + ahead)
            far._about["released"] = far._about["beats"] > 3
            far._write()

    clock.then = live
    with leased(path):
        pass
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (said is not None)
    assert said is None or warned[0].startswith(f"the clock of node7 is {said}")


def test_a_short_wait_is_not_said(path, far, clock, caplog):
    def release():
        if clock.now > 1:
            far._about["released"] = True
        far._write()

    clock.then = release
    with caplog.at_level(logging.INFO), leased(path):
        assert 1 < clock.now < module.NOTICE and not caplog.messages


@pytest.mark.parametrize("content", ["", "7"])
def test_a_lease_that_was_just_created_or_is_damaged_is_no_dead_one(content, path, clock):
    (path.parent / ".made+.npz.lease-4").write_text(content)
    with leased(path) as lease:
        assert clock.now > PATIENCE and lease.number == 5


def test_a_killed_owner_on_this_machine_is_followed_at_once(path, clock):
    if not (child := os.fork()):
        try:
            Lease(path, 1)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its parent has not looked yet
    with leased(path) as lease:
        assert clock.now == 0 and lease.number == 2
    assert ended.si_status == signal.SIGKILL and os.waitpid(child, 0)[0] == child


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(path, monkeypatch):
    about = json.loads(Lease(path, 1)._file.read_text())
    assert not module._is_gone(about)
    assert module._is_gone(about | {"started": "0"})
    assert not module._is_gone(about | {"started": "0", "machine": "far"})

    def refuse(*args):
        raise PermissionError("of another user")

    monkeypatch.setattr(os, "kill", refuse)
    assert not module._is_gone(about | {"started": "0"})


def test_of_several_that_judge_one_can_take_over(path, far):
    found = [module._create(path, 2) for _ in range(3)]
    assert [lease is not None for lease in found] == [True, False, False]


def test_who_judged_long_ago_does_not_take_over_from_a_later_one(path, far):
    module._create(path, 2)
    third = module._create(path, 3)
    assert module._create(path, 2) is None
    assert third.is_own and files(path) == [".made+.npz.lease-3"]


def test_what_was_taken_over_is_not_written(path):
    with leased(path) as lease:
        replace_text(path, "first")
        other = module._create(path, lease.number + 1)
        with pytest.raises(LeaseLost, match="no sign of life for long.* has taken over. The same"):
            replace_text(path, "second")
    assert path.read_text() == "first" and other.is_own
    assert files(path) == [".made+.npz.lease-2", "made+.npz"]
    replace_text(path, "another's business")  # nothing is held any more


def test_a_lease_of_the_same_number_may_be_anothers(path):
    """Who removes all hidden files begins at 1 again."""
    with leased(path) as lease:
        lease._file.unlink()
        assert module._create(path, lease.number).is_own and not lease.is_own


def test_within_a_lease_another_one_is_held_too(path):
    inner = path.with_name("inner")
    with leased(path) as lease, leased(inner):
        module._create(path, lease.number + 1)
        with pytest.raises(LeaseLost):
            replace_text(inner, "made of what another makes")
    assert not inner.exists()


def test_no_room_for_a_lease_keeps_nobody_waiting(path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"), leased(path):
            pass
    assert files(path) == []


def test_a_thread_gives_signs_of_life(path):
    with leased(path, beat=0.001) as lease:
        before = lease._file.read_bytes()
        while lease._file.read_bytes() == before:
            time.sleep(0.001)
    assert json.loads(lease._file.read_text())["released"]


def test_a_network_that_fails_for_a_while_ends_no_life(path, monkeypatch):
    write, failures = os.pwrite, [OSError(5, "Input/output error")] * 2

    def flaky(*args):
        if failures and threading.current_thread() is not threading.main_thread():
            raise failures.pop()
        return write(*args)

    monkeypatch.setattr(os, "pwrite", flaky)
    with leased(path, beat=0.001) as lease:
        before = lease._file.read_bytes()
        for _ in range(1000):
            if lease._file.read_bytes() != before:
                break
            time.sleep(0.01)
        assert json.loads(lease._file.read_text())["beats"] > 1 and not failures


def test_processes_are_at_work_one_after_the_other(path):
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            try:
                with leased(path, beat=0.005), path.open("a", buffering=1) as file:
                    file.write("begin ")
                    time.sleep(0.005)
                    file.write("end\n")
            finally:
                os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert path.read_text() == "begin end\n" * 4
