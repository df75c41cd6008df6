"""The packages with pictures: one version each, and what is said without them."""

import tomllib
from pathlib import Path

import pytest

from tsv_bench.data.collected import packages
from tsv_bench.process import extras

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def installed(monkeypatch):
    """All are installed, whatever the environment has."""
    monkeypatch.setattr(extras, "find_spec", lambda module: True)
    monkeypatch.setattr(packages, "version", packages.VERSIONS.__getitem__)


def test_versions_are_those_that_the_extra_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [f"{name}=={version}" for name, version in packages.VERSIONS.items()]
    assert project["optional-dependencies"]["pictures"] == pins
    assert set(pins) <= set((ROOT / "constraints.txt").read_text().splitlines())


def test_with_all_of_them_nothing_is_said(installed):
    packages.check_packages()


def test_a_missing_package_is_named_with_the_command(monkeypatch, installed):
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "mlxtend" else 1)
    with pytest.raises(ValueError, match=r"first mlxtend: pip install 'tsv_bench\[pictures\]'"):
        packages.check_packages()


def test_another_version_is_refused_since_it_may_have_other_pictures(monkeypatch, installed):
    versions = packages.VERSIONS | {"iconipy": "0.6.0"}
    monkeypatch.setattr(packages, "version", versions.__getitem__)
    with pytest.raises(ValueError, match="iconipy is 0.6.0.*pip install iconipy==0.5.1"):
        packages.check_packages()


def test_zeros_before_a_number_make_no_other_version(monkeypatch, installed):
    versions = packages.VERSIONS | {"fontpkg-delius": "1.001"}
    monkeypatch.setattr(packages, "version", versions.__getitem__)
    packages.check_packages()


def test_a_package_that_no_installer_knows_is_refused(monkeypatch, installed):
    def version(name):
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", version)
    with pytest.raises(ValueError, match="fontpkg-caveat is not known to the installer"):
        packages.check_packages()


def test_a_file_is_found_beside_its_package():
    assert packages.file_in("tsv_bench/data/collected/packages.py") == Path(packages.__file__)


def test_a_file_of_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"pip install 'tsv_bench\[pictures\]'"):
        packages.file_in("no_such_package/fonts/a.ttf")
