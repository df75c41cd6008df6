"""The packages that pictures are read from, each in the one version that the tasks were made of."""

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tsv_bench.process.extras import check_installed

# Distribution -> version. The files are data: with others, a task of the same fingerprint would
# have other images. pyproject.toml pins the same, and docs/pictures.md has the licences.
VERSIONS = {
    "fontpkg-caveat": "2.0",
    "fontpkg-dancing-script": "2.1",
    "fontpkg-delius": "1.1",
    "fontpkg-great-vibes": "1.103",
    "fontpkg-indie-flower": "2.0",
    "fontpkg-kalam": "2.1",
    "fontpkg-pacifico": "3.1",
    "fontpkg-permanent-marker": "1.1",
    "fontpkg-satisfy": "1.1",
    "fontpkg-shadows-into-light": "1.0",
    "iconipy": "0.5.1",
    "mlxtend": "0.25.0",
    "qtawesome": "1.4.2",
    "tkinter-icons-bs": "1.1.1",
}
LEADING = re.compile(r"\b0+(?=\d)")  # zeros: 1.001 is the registry's 1.1


def check_packages() -> None:
    """Raise ValueError that says what to install if a package is missing or of another version."""
    check_installed("pictures", "a task of collected pictures")
    for name, expected in VERSIONS.items():
        try:
            found = LEADING.sub("", version(name))
        except PackageNotFoundError:
            found = "not known to the installer"
        if found != expected:
            raise ValueError(
                f"{name} is {found}; the tasks of collected pictures are made of {expected}, and "
                f"another version may have other pictures: pip install {name}=={expected}"
            )


def file_in(place: str) -> Path:
    """Return the path of a file in a package, from ``package/folder/file``.

    Raises ValueError if the package is not installed.
    """
    package, _, rest = place.partition("/")
    if find_spec(package) is None:
        check_packages()
    return Path(find_spec(package).origin).parent / rest
