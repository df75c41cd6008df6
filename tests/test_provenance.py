"""Where a number comes from."""

import subprocess

import pytest
import torch

from tsv_bench import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of one commit in place of ours, and git in it."""

    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path, git
    provenance.commit.cache_clear()


def test_commit_of_a_clean_checkout(checkout):
    folder, git = checkout
    (folder / "untracked").write_text("runs and the like")
    assert provenance.commit() == git("rev-parse", "HEAD")[:12]


def test_changed_checkout_is_dirty(checkout):
    folder, git = checkout
    (folder / "file").write_text("b")
    assert provenance.commit() == git("rev-parse", "HEAD")[:12] + "-dirty"


def test_installed_package_says_its_version(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", checkout[0] / "nowhere")
    assert provenance.commit() == "tsv_bench 0.1.0, no git checkout"


def test_versions_machine_and_memory_are_there(monkeypatch):
    assert provenance.versions()["torch"] == torch.__version__.split("+")[0]
    assert {"python", "tsv_bench", "open_clip_torch", "datasets"} <= set(provenance.versions())
    assert provenance.machine("cpu").endswith(f", {torch.get_num_threads()} threads")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the kind of {device}")
    assert provenance.machine("cuda") == "the kind of cuda"
    assert provenance.machine("cuda:1,cuda:0") == "2 x the kind of cuda:1"
    # In bytes on every system: torch alone takes over 100 MB.
    assert 1e8 < provenance.peak_memory() < 1e12
