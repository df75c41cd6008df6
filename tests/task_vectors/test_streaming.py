"""Layers computed while others are read: order, blocks, bounds, and what happens when it ends."""

import gc
import os
import re
import signal
import threading
import time
from functools import partial

import pytest
import torch
from made_up.vectors import randn, random_vectors

from tsv_bench import methods
from tsv_bench.task_vectors import lazy, streaming
from tsv_bench.task_vectors.lazy import LazyVector, Part, as_lazy, blocks
from tsv_bench.task_vectors.merge import mean, merge_entries
from tsv_bench.task_vectors.streaming import gather, stream, stream_parts
from tsv_bench.task_vectors.task_vector import TaskVector

TIMEOUT = 300  # seconds, for what takes none unless it is broken
METHODS = {
    "weight_average": methods.weight_average,
    "task_arithmetic": methods.task_arithmetic,
    "ties": partial(methods.ties, density=0.3),
    "tsv_merge": methods.tsv_merge,
    "tsv_compress": methods.tsv_compress,
}


@pytest.fixture(autouse=True)
def threads_end():
    """Every test leaves as many threads as it found, and torch's and MKL's settings alone."""
    outside = torch.get_num_threads()
    torch.set_num_threads(2)
    before = settings()
    yield
    deadline = time.monotonic() + TIMEOUT
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)  # a reader may be in the middle of its last layer
    assert workers() == []
    found = settings()
    torch.set_num_threads(outside)
    assert found == before


def workers():
    names = ("read", "compute")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


def settings():
    # MKL's own number of threads is one for all threads; torch tells it in no other way.
    mkl = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    return torch.get_num_threads(), mkl and mkl[1]


def layers(num, read=lambda i: i, compute=torch.as_tensor, num_entries=1):
    """A lazy vector of ``num`` parts that are their own numbers."""

    def parts(name):
        i = int(name)
        return [Part(name, 0, num_entries, partial(read, i), compute)]

    names = as_lazy({str(i): torch.tensor(i) for i in range(num)})
    return LazyVector([names], parts)


def task_vectors(num_tasks):
    """Lazy ones, which can read some rows alone."""
    vectors = random_vectors(num_tasks, torch.float32)
    for vector in vectors.values():
        vector.update(none=torch.zeros(0, 4), narrow=torch.randn(5, 0), row=torch.randn(1, 7))
    base = {name: torch.randn(delta.shape) for name, delta in vectors["task0"].items()}
    return {
        task: TaskVector(base, {n: base[n] + delta for n, delta in vector.items()})
        for task, vector in vectors.items()
    }


@pytest.mark.parametrize("block", [1, 40, lazy.BLOCK])
@pytest.mark.parametrize("name", METHODS)
def test_streaming_is_access_by_name_in_order(name, block, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", block)
    vector = METHODS[name](task_vectors(3))["task1"]
    rows = list(stream(vector))
    streamed = gather(rows)
    assert list(streamed) == list(vector)
    # BLAS may round otherwise with another number of threads: a place of float32.
    rounding = 1e-6 if name == "tsv_merge" else 0
    for layer, tensor in streamed.items():
        torch.testing.assert_close(tensor, vector[layer], rtol=rounding, atol=rounding, msg=layer)
    for layer in vector:
        own = [(start, tensor) for name, start, tensor in rows if name == layer]
        lengths = [len(tensor) if tensor.ndim else 1 for _, tensor in own]
        assert [start for start, _ in own] == [sum(lengths[:i]) for i in range(len(own))]
    assert block > 1 or name.startswith("tsv") or len(rows) > 50  # rows alone


def test_vector_that_is_not_lazy_comes_whole():
    vector = random_vectors(1)["task0"]
    rows = list(stream(vector))
    assert [(name, start) for name, start, _ in rows] == [(name, 0) for name in vector]
    assert all(tensor is vector[name] for name, _, tensor in rows)


@pytest.mark.parametrize("shape", [(), (0, 4), (5, 0), (1, 7), (7,), (6, 5), (3, 2, 2), (300, 1)])
@pytest.mark.parametrize("block", [1, 7, 24, 10**6])
def test_blocks_cover_every_row_once(shape, block, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", block)
    base, tuned = torch.zeros(shape), torch.randn(2, *shape)
    vectors = [TaskVector({"w": base}, {"w": own}) for own in tuned]
    parts = blocks(vectors, "w", mean)
    read = [part.read() for part in parts]
    assert torch.equal(torch.cat(read, dim=1) if shape else read[0], tuned)
    assert sum(part.num_entries for part in parts) == tuned.numel()
    num_rows = shape[0] if shape else 1
    row = tuned.numel() // max(num_rows, 1)
    assert all(part.num_entries <= max(block, row) for part in parts)
    assert [part.start for part in parts] == [
        sum(own.shape[1] if shape else 1 for own in read[:i]) for i in range(len(parts))
    ]


def test_next_layer_is_read_while_this_one_is_computed():
    read = [threading.Event() for _ in range(4)]

    def compute(i):
        assert i == 3 or read[i + 1].wait(TIMEOUT), f"{i + 1} is not read before {i} is computed"
        return torch.tensor(i)

    vector = layers(4, lambda i: read[i].set() or i, compute)
    assert [int(tensor) for _, _, tensor in stream(vector)] == [0, 1, 2, 3]


def test_parts_are_computed_side_by_side():
    both = threading.Barrier(2)  # broken unless two arrive within the timeout
    vector = layers(4, compute=lambda i: both.wait(TIMEOUT) * 0 + torch.tensor(i))
    assert torch.get_num_threads() == 2
    assert [int(tensor) for _, _, tensor in stream(vector)] == [0, 1, 2, 3]


def test_a_part_that_wants_to_be_alone_is():
    running, seen = set(), {}

    def part(name):
        def compute(read):
            running.add(name)
            time.sleep(0.02)  # others would start meanwhile
            seen[name] = set(running), torch.get_num_threads()
            running.remove(name)
            return torch.zeros(1)

        return Part(name, 0, 1, lambda: None, compute, alone=name == "c")

    names = "abcdef"
    assert [n for n, _, _ in stream_parts(map(part, names))] == [*names]
    assert seen["c"] == ({"c"}, 2)
    assert all("c" not in others for name, (others, _) in seen.items() if name != "c")


@pytest.mark.parametrize(("num_entries", "most"), [(10, 4), (15, 2), (25, 2), (1000, 2), (0, 9)])
def test_no_more_than_the_bound_is_in_flight(num_entries, most, monkeypatch):
    """Two layers at least, and at most four for every thread beside the one in hand."""
    monkeypatch.setattr(streaming, "IN_FLIGHT", 40)
    reads, taken, in_flight = threading.Semaphore(0), [], []

    def read(i):
        in_flight.append(i + 1 - len(taken))
        reads.release()
        return i

    for position, (_, _, tensor) in enumerate(stream(layers(30, read, num_entries=num_entries))):
        assert int(tensor) == position
        for _ in range(most if position == 0 else position + most <= 30):
            assert reads.acquire(timeout=TIMEOUT), "reading does not run ahead as far as it may"
        taken.append(position)  # it counts until the next is asked for
    assert max(in_flight) == most and len(in_flight) == 30


@pytest.mark.parametrize("where", ["read", "compute"])
@pytest.mark.parametrize("bad", [0, 3, 19])
def test_error_reaches_the_caller_in_its_turn(where, bad):
    def fails(i):
        if i == bad:
            raise ValueError(f"cannot {where} {i}")
        return torch.as_tensor(i)

    vector, found = layers(20, **{where: fails}), []
    with pytest.raises(ValueError, match=f"cannot {where} {bad}"):
        for _, _, tensor in stream(vector):
            found.append(int(tensor))
    assert found == list(range(bad))


def in_the_middle():
    """A stream of a long vector, one part taken; the parts read so far."""
    read = []
    flow = stream(layers(10_000, lambda i: read.append(i) or i))
    assert int(next(flow)[2]) == 0
    return flow, read


def test_closing_early_ends_the_threads():
    flow, read = in_the_middle()
    flow.close()
    assert len(read) < 30 and list(flow) == []


def test_dropping_it_early_ends_the_threads():
    flow, read = in_the_middle()
    del flow
    gc.collect()
    assert len(read) < 30


def test_ctrl_c_ends_the_threads():
    flow, read = in_the_middle()
    with pytest.raises(KeyboardInterrupt):
        flow.throw(KeyboardInterrupt)
    assert len(read) < 30


def test_ctrl_c_while_waiting_for_a_layer_ends_the_threads():
    read = []
    vector = layers(10_000, lambda i: read.append(i) or i, interrupting_at(3))
    with pytest.raises(KeyboardInterrupt):
        for _ in stream(vector):
            pass
    assert len(read) < 100


def interrupting_at(bad):
    def compute(i):
        if i == bad:
            os.kill(os.getpid(), signal.SIGINT)
        return torch.tensor(i)

    return compute


def test_closing_while_a_layer_is_computed_waits_for_it():
    going, go = threading.Event(), threading.Event()

    def compute(i):
        if i == 1:
            going.set()
            assert go.wait(TIMEOUT)
        return torch.tensor(i)

    flow = stream(layers(50, compute=compute))
    next(flow)
    assert going.wait(TIMEOUT)
    closer = threading.Thread(target=flow.close)
    closer.start()
    assert workers()
    go.set()
    closer.join(TIMEOUT)
    assert not closer.is_alive()


def test_never_started_stream_starts_no_thread():
    flow = stream(layers(3))
    assert workers() == []
    flow.close()


def test_unknown_layer_is_a_key_error():
    vector = merge_entries([{"w": randn(2)}], mean)
    assert "v" not in vector and "w" in vector
    with pytest.raises(KeyError, match="v"):
        vector["v"]
