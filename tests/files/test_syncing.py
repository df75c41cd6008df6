"""Files are brought to the disk while they are written."""

import os
import threading

import pytest

from tsv_bench.files import syncing
from tsv_bench.files.syncing import EarlySync


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(syncing, "EVERY", 10)
    descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_a_file_is_synced_once_so_many_bytes_are_written_and_nobody_waits(file, monkeypatch):
    synced, may_end = [], threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda own: (synced.append(own), may_end.wait(60)))
    with EarlySync() as sync:
        sync.wrote(file, 9)
        assert sync._running is None
        sync.wrote(file, 9)  # begins one, which does not end
        sync.wrote(file, 100)
        assert not sync._running.done()
        may_end.set()
    assert synced == [file]


@pytest.mark.parametrize("again", [True, False])
def test_an_error_of_the_disk_is_raised(again, file, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"), EarlySync() as sync:  # noqa: PT012
        sync.wrote(file, 10)
        if again:
            sync._running.exception(60)
            sync.wrote(file, 10)
