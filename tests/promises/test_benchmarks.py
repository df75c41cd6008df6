"""benchmarks/gpu.py in small sizes on the CPU, so that it works when a GPU is at hand."""

import sys
import time

import gpu
import gpu_merging
import pytest
import torch
from gpu_sections import SECTIONS
from gpu_timing import Plan, shares

from tsv_bench import methods

pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return Plan("cpu", tmp_path_factory.mktemp("files"), small=True)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "tests"])
def test_sections_yield_lines_with_what_they_measure(name, plan):
    fewer = {"methods": ("tsv_merge", "ties")} if name == "merging" else {}
    rows = list(SECTIONS[name].run(plan, **fewer))
    measured = {
        "pieces": {"ms"},
        "merging": {"s", "peak, GB"},
        "large": {"s", "peak, GB"},
        "evaluation": {"images/s from the cache", "images/s, bare loop", "share"},
        "devices": {"images/s", "times as fast"},
        "finetuning": {"steps/s"},
    }[name]
    lines = [row for row in rows if measured <= set(row)]
    assert lines and all(row[key] > 0 for row in lines for key in measured)
    found = {"about": {"device": "x"}, "sections": {name: {"title": name, "seconds": 1.0}}}
    found["sections"][name]["rows"] = rows
    assert all(f"| {next(iter(row.values()))} |" in gpu.page(found) for row in rows)
    if name == "merging":
        routes = {row["method"]: row["ratio"] for row in lines}
        assert routes["tsv_merge"] > 0 and routes["ties"] is None
    if name == "evaluation":  # two classes at least, or any precision would agree
        assert all(0.5 < row["top-1 as in float32"] <= 1 for row in lines)


def test_all_sections_fit_into_the_time_and_their_methods_exist():
    assert set(gpu_merging.PLAIN) <= set(gpu_merging.MERGED) <= set(methods.__all__)
    assert sum(section.seconds for section in SECTIONS.values()) <= gpu.SECONDS <= 480


def test_what_a_section_printed_before_it_failed_or_hung_is_kept():
    printed = 'print("ROW", \'{"a": 1}\', flush=True); '
    failing = [sys.executable, "-c", printed + "raise ValueError('no memory')"]
    rows = list(gpu.rows_of(failing, 30))
    assert rows == [{"a": 1}, {"problem": "failed, exit code 1: ValueError: no memory"}]
    hanging = [sys.executable, "-c", printed + "import time; time.sleep(60)"]
    started = time.monotonic()
    assert list(gpu.rows_of(hanging, 1)) in (
        [{"a": 1}, {"problem": "ended after its 1 s"}], [{"problem": "ended after its 1 s"}]
    )  # fmt: skip
    assert time.monotonic() - started < 50


def test_plain_route_counts_every_matrix_and_the_tasks_that_are_left_out(monkeypatch):
    """With a clock that takes one second for whatever it times."""
    monkeypatch.setattr(gpu_merging, "timed", lambda device, run: (run(), (1.0, 0.0))[1])
    layers = {f"{i}.w": torch.randn(4, 3) for i in range(3)} | {"b": torch.randn(4)}
    layers |= {"token_embedding.weight": torch.zeros(9, 3), "proj": torch.randn(3, 5)}
    vectors = {task: gpu_merging.FirstBlock(layers) for task in "abcde"}
    for name, seconds in (("tsv_merge", 4 * 4), ("tsv_compress", 4 * 4), ("iso_c", 4)):
        assert gpu_merging.plain_route(name, vectors, "cpu", 2, time.monotonic() + 60) == seconds
    assert gpu_merging.plain_route("iso_c", vectors, "cpu", 2, time.monotonic() - 1) is None


def test_copies_between_host_and_device_are_told_from_other_work():
    spans = [
        ("Memcpy HtoD (Pageable -> Device)", 1.0), ("Memcpy DtoH (Device -> Pinned)", 0.5),
        ("Memcpy DtoD (Device -> Device)", 1.0), ("sgemm", 2.0),
    ]  # fmt: skip
    assert shares(spans, 10.0) == (0.15, 0.3)
