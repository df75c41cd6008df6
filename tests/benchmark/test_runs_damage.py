"""What is no Run's file is named and passed over: nothing hangs, and memory stays bounded."""

import logging
import os
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from made_up.damaged_runs import odd_bits, odd_files
from made_up.runs import make_run

from tsv_bench.benchmark.runs import find_runs, load_correct, load_run, save_run
from tsv_bench.files.content import MOST_BYTES

SMALL = {"tasks": ("land", "greek"), "num_images": 8}


@pytest.fixture
def saved(tmp_path):
    """(the Run, its correctness, its file)"""
    run, correct = make_run(**SMALL)
    return run, correct, save_run(run, correct, tmp_path)


@pytest.fixture
def memory():
    """Ask for the largest memory that Python and numpy have held since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_odd_files_are_named_and_passed_over(saved, memory, caplog):
    run, _, path = saved
    odd = odd_files(path, path.read_text())
    with caplog.at_level(logging.WARNING, logger="tsv_bench.benchmark.runs"):
        assert find_runs(path.parents[2]) == [(path, run)]
    assert len(caplog.messages) == len(odd)
    for file in odd:
        name = "new\\nline\\x1b[31m.json" if "\n" in file.name else file.name
        assert sum(f"/{name}" in message for message in caplog.messages) == 1, name
    assert all(message.isprintable() for message in caplog.messages)
    assert memory() < 4 * MOST_BYTES


def test_a_loop_of_folders_ends(saved):
    run, _, path = saved
    (path.parent / "again").symlink_to(path.parents[1])
    assert find_runs(path.parents[2]) == [(path, run)]


def test_a_file_may_be_a_link_to_a_run(saved, tmp_path):
    run, _, path = saved
    (tmp_path / "link.json").symlink_to(path)
    assert load_run(tmp_path / "link.json") == run


BITS = dict(odd_bits(make_run(**SMALL)[1]))


@pytest.mark.parametrize("name", BITS)
def test_correctness_that_is_not_the_runs_is_named(name, saved, memory):
    run, correct, path = saved
    assert load_correct(path, run).keys() == correct.keys()
    bits, content = path.with_suffix(".npz"), BITS[name]
    bits.unlink()
    if callable(content):
        content(bits)
    elif isinstance(content, bytes):
        bits.write_bytes(content)
    else:
        np.savez_compressed(bits, **content)
    with pytest.raises(ValueError, match=path.stem):
        load_correct(path, run)
    assert memory() < 4 * MOST_BYTES


def test_no_code_of_a_pickle_runs(saved, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    run, correct, path = saved
    task = next(iter(correct))
    odd = np.full(len(correct[task]), Hostile(), object)
    np.savez(path.with_suffix(".npz"), **correct | {task: odd})
    with pytest.raises(ValueError, match=path.stem):
        load_correct(path, run)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shape", [(10**12,), (-8,), (8, 0), (4, 2), ()])
def test_memory_is_not_reserved_for_what_a_header_claims(shape, saved, memory):
    run, correct, path = saved
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
        for task, bits in correct.items():
            with archive.open(f"{task}.npy", "w") as member:
                header = {"descr": "|b1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bits.tobytes())
    with pytest.raises(ValueError, match=path.stem):
        load_correct(path, run)
    assert memory() < MOST_BYTES


def test_a_member_that_lies_about_its_size_unpacks_no_more(saved, memory):
    run, correct, path = saved
    bits = path.with_suffix(".npz")
    np.savez_compressed(bits, **dict.fromkeys(correct, np.zeros(2**25, bool)))
    content = bytearray(bits.read_bytes())
    size = (2**25 + 128).to_bytes(4, "little")
    assert size in content
    bits.write_bytes(content.replace(size, (136).to_bytes(4, "little")))
    tracemalloc.reset_peak()
    with pytest.raises(ValueError, match=path.stem):
        load_correct(path, run)
    assert memory() < MOST_BYTES


@pytest.mark.parametrize("name", ["backbone", "suite", "method", "fingerprint"])
def test_a_name_that_leaves_the_folder_is_not_written(name, tmp_path):
    run, correct = make_run(**SMALL)
    run = replace(run, **{name: "../../x"})
    with pytest.raises(ValueError, match=f"the Run's {name} is '../../x'"):
        save_run(run, correct, tmp_path / "runs")
    assert not list(tmp_path.rglob("*"))
