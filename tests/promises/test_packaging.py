"""The wheel, made from the sdist, installed elsewhere and run where no checkout is importable."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import tsv_bench

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = tuple(PROJECT["scripts"])


def run(*command, cwd):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built without isolation, so without network: first the sdist, then the wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    run(*build, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """An environment of its own, with the wheel; the dependencies are this environment's.

    Its .pth names our site-packages. A folder that a .pth names is searched, but the .pth files
    in it are not read, so the editable install of the checkout does not come along.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    run(sys.executable, "-m", "pip", *install, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_holds_the_package_and_its_configuration_and_nothing_else(wheel):
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tsv_bench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    conf = {
        f"tsv_bench/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "conf").rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package | conf


def test_wheel_says_that_it_is_typed_and_under_which_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"tsv_bench-{tsv_bench.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode().splitlines()
    assert {"tsv_bench/py.typed", f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    assert {"License-Expression: Apache-2.0", f"Version: {tsv_bench.__version__}"} <= set(metadata)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_wheel_holds_the_mini_backbone(wheel, suffix):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    found = {name for name in sizes if name.startswith("tsv_bench/models/")}
    assert any(name.endswith(suffix) and sizes[name] > 0 for name in found), found


def test_installed_package_is_not_the_checkout(elsewhere):
    code = "import sys, tsv_bench; print(tsv_bench.__file__, *sys.path, sep='\\n')"
    file, *path = run(elsewhere / "env" / "bin" / "python", "-c", code, cwd=elsewhere).splitlines()
    assert file.startswith(str(elsewhere))
    assert str(ROOT) not in path


def test_installed_commands_compose_their_configuration(elsewhere):
    """In one process, since each imports torch, which takes seconds."""
    code = """
import importlib.metadata, sys
for command in importlib.metadata.distribution("tsv_bench").entry_points:
    print(f"== {command.name}")
    sys.argv = [command.name, "--cfg", "job"]
    command.load()()
"""
    printed = run(elsewhere / "env" / "bin" / "python", "-c", code, cwd=elsewhere)
    composed = dict(part.split("\n", 1) for part in printed.split("== ")[1:])
    assert set(composed) == set(COMMANDS)
    for command in COMMANDS:
        assert len(yaml.safe_load(composed[command])) > 2, command
        assert (elsewhere / "env" / "bin" / command).is_file()
