"""Every test: shapes checked at run time, the same random numbers, and no network."""

import gc
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys

gc.disable()  # until all is imported and collected: what comes until then stays, to the end

# What a user's shell may hold and a command reads: choices, accounts, proxies, another checkout.
OUTSIDE = ("WANDB_", "HF_", "HYDRA_", "TSV_BENCH_", "GIT_")
NAMES = {"COLUMNS", "LINES", "PYTHONWARNINGS", "RANK", "LOCAL_RANK", "WORLD_SIZE"}
for name in list(os.environ):
    if name.startswith(OUTSIDE) or name in NAMES or name.lower().endswith("_proxy"):
        del os.environ[name]
# Set before any library reads them.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline")
os.environ["PYTHONIOENCODING"] = "utf-8"  # of started processes: the locale may have no such signs
# One thread, in the processes that tests start, too: matrices are small, and threads that share
# a core with another process wait for each other a hundred times as long as they compute.
os.environ.update(MPLBACKEND="Agg", MATPLOTLIBRC=os.devnull, OMP_NUM_THREADS="1")

import pytest  # noqa: E402

# jaxtyping rewrites these modules as they load: where shapes are written. Not where what a user
# gave is checked, with a message of its own.
CHECKED = [
    f"tsv_bench.{name}"
    for name in (
        "linalg",
        "task_vectors.bits", "task_vectors.merge", "task_vectors.order_statistics",
        "task_vectors.task_vector",
        "methods.entrywise", "methods.matrixwise", "methods.shared_bases", "methods.masked",
        "methods.observed", "methods.learned", "methods.evolved",
        "analysis.measures",
    )
]  # fmt: skip


def pytest_configure(config):
    """Import what takes seconds, unless this is xdist's process that only hands out tests."""
    if not hasattr(config, "workerinput") and config.getoption("dist", "no") != "no":
        return
    from stand_ins import shape_checks

    shape_checks.install(CHECKED)

    import torch
    from stand_ins import composing

    from tsv_bench.models import quick_import

    # Before a test module imports open_clip, which would take all that it can use with it.
    quick_import.imported()
    composing.shorten()
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--network", action="store_true", help="run the tests that reach a network")


def pytest_collection_modifyitems(config, items):
    import torch
    from stand_ins import chromium

    # Whole commands and what is slow first: a worker that ended early would wait for the other.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = ("commands", "report", "promises")
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name not in first))
    for item in items:
        if item.get_closest_marker("network") and not config.getoption("--network"):
            item.add_marker(pytest.mark.skip(reason="needs --network"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("browser") and not chromium.find():
            reason = f"needs a Chromium on the PATH, as one of: {', '.join(chromium.NAMES)}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session):
    # pytest adds its handlers to each logger that does not propagate, six times a test; torch has
    # dozens. What they say goes to the root, as what others say.
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.partition(".")[0] == "torch":
            logger.handlers.clear()
            logger.propagate = True
    # What is imported stays: no use in looking through it for garbage again and again.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    gc.enable()


def pytest_sessionfinish():
    # A last look for garbage takes a second. Triton writes a page about what is left without it.
    if "triton" in sys.modules:
        gc.unfreeze()


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory):
    """A folder with data, heads and checkpoints of the two small tasks, to begin a copy from.

    The first worker that asks for it makes it for all of a test run.
    """
    from stand_ins.commands import SMALL, tsv

    from tsv_bench.files import leased

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "fine-tuned"
    with leased(folder):
        if not folder.exists():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            made = tsv(making, "bench", "method=individual", *SMALL)
            assert made.code == 0, made.err
            shutil.rmtree(making / "runs")
            making.rename(folder)
    return folder


@pytest.fixture
def without_shape_checks(monkeypatch):
    """For tests of every method that ask for other things: shapes take two thirds of their time.

    The tests of each method check the shapes of its functions.
    """
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def short_fits():
    """For tests that run MERGE3 and do not ask how well its item models fit; test_irt does."""
    from tsv_bench.methods.evolved import irt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(irt, "STEPS", 10)
        yield


@pytest.fixture(scope="module")
def few_resamples():
    """For tests of how intervals are shown; test_statistics and its coverage ask what they are."""
    from tsv_bench.report.tables import statistics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_RESAMPLES", 100)
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """For tests of what stands beside figures: each is made, and written as an empty picture."""
    from stand_ins.commands import blank

    from tsv_bench.report.plots import style

    monkeypatch.setattr(style, "_write", blank)


@pytest.fixture(autouse=True)
def seeded():
    import torch

    # torch.manual_seed writes the stack down for each kind of device that may come to be used.
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C ends a test, as in a terminal; shells start background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def network_attempts(request, monkeypatch):
    """Fail the test that reaches for another machine, even if the code under test hid the error."""
    attempts = []
    if request.node.get_closest_marker("network"):
        yield attempts
        return

    def guarded(method):
        def checked(sock, address, *args):
            if sock.family != socket.AF_UNIX and not is_loopback(address[0]):
                attempts.append(address)
                raise ConnectionRefusedError(f"tests have no network: {address}")
            return method(sock, address, *args)

        return checked

    def getaddrinfo(host, *args, **kwargs):
        if host and not is_loopback(host):
            attempts.append(host)
            raise socket.gaierror(f"tests have no network: {host}")
        return resolve(host, *args, **kwargs)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield attempts
    if attempts:
        pytest.fail(f"reached for the network: {attempts}. Mark the test network if it must.")


def is_loopback(host):
    if isinstance(host, bytes):
        host = host.decode()
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
