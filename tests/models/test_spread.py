"""Pieces of work over several devices, whose names stand for some here."""

import threading
from contextvars import ContextVar

import pytest
import torch

from tsv_bench.models.spread import Spread, Stopped

word = ContextVar("word", default="none")
LONG = 60  # seconds; only what is wrong takes as long


def run(spread, work, pieces):
    return dict(spread.run(work, pieces, name=str))


def test_devices_work_side_by_side_and_each_on_one_piece_at_a_time():
    together, at_work = threading.Barrier(3), [threading.Lock() for _ in range(3)]

    def work(device, piece):
        assert at_work[device].acquire(blocking=False)
        if piece < 3:
            together.wait(LONG)  # for the other two
        at_work[device].release()
        return 10 * piece

    assert run(Spread("abc"), work, range(8)) == {piece: 10 * piece for piece in range(8)}


def test_a_piece_is_taken_when_a_device_is_free_for_it():
    taken, ended = [], []

    def pieces():
        for piece in range(6):
            taken.append(piece)
            assert len(taken) - len(ended) <= 2
            yield piece

    for number, _ in Spread("ab").run(lambda device, piece: None, pieces(), name=str):
        ended.append(number)
    assert sorted(ended) == taken == [*range(6)]
    assert run(Spread("ab"), lambda device, piece: None, []) == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad"), ValueError),
        (FileNotFoundError("bad"), OSError),
        (torch.OutOfMemoryError("bad"), torch.OutOfMemoryError),
        (KeyError("bad"), RuntimeError),
    ],
)
def test_an_error_names_piece_and_device_and_ends_the_others_at_a_step(error, kind):
    spread, begun, stopped = Spread(["cuda:0", "cuda:1"]), threading.Event(), threading.Event()

    def work(device, piece):
        if piece == "short":
            begun.wait(LONG)
            raise error
        begun.set()
        try:
            while True:
                spread.check()
        except Stopped:
            stopped.set()
            raise

    with pytest.raises(kind, match="short on cuda:1: .*bad"):
        run(spread, work, ["long", "short", "never"])
    assert stopped.is_set()
    spread.check()  # for what comes next
    assert run(spread, lambda device, piece: piece, "ab") == {0: "a", 1: "b"}


def test_if_nobody_wants_the_rest_it_ends():
    spread, did, begun = Spread("ab"), [], threading.Event()

    def work(device, piece):
        did.append(piece)
        if not piece:
            begun.wait(LONG)
        begun.set()
        while piece:
            spread.check()

    found = spread.run(work, range(100), name=str)
    assert next(found) == (0, None)
    found.close()
    assert sorted(did) == [0, 1]
    assert not [t for t in threading.enumerate() if t.name.startswith("device")]


def test_a_thread_has_the_settings_of_the_one_that_asks():
    def work(device, piece):
        return torch.get_num_threads(), torch.is_grad_enabled(), word.get()

    token = word.set("said")
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            assert set(run(Spread("ab"), work, range(4)).values()) == {(2, False, "said")}
    finally:
        torch.set_num_threads(1)
        word.reset(token)
