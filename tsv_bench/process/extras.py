"""The optional packages: which extra of the installation brings them, and what to say without."""

from importlib.util import find_spec

# Extra -> the modules that its packages offer. tests/promises/test_dependencies.py compares them
# with pyproject.toml. The extras evolve and language are told of where they are used.
EXTRAS = {
    "bench": (
        "PIL", "datasets", "fontTools", "httpx2", "huggingface_hub", "matplotlib",
        "open_clip", "pyarrow", "sklearn", "torchvision",
    ),
    "pictures": (
        "fontpkg_caveat", "fontpkg_dancing_script", "fontpkg_delius", "fontpkg_great_vibes",
        "fontpkg_indie_flower", "fontpkg_kalam", "fontpkg_pacifico", "fontpkg_permanent_marker",
        "fontpkg_satisfy", "fontpkg_shadows_into_light", "iconipy", "mlxtend", "qtawesome",
        "tkinter_icons_bs",
    ),
    "wandb": ("wandb",),
}  # fmt: skip


def check_installed(extra: str, who: str) -> None:
    """Raise ValueError that says what to install if a module of an extra is not there."""
    lacking = [module for module in EXTRAS[extra] if not _is_there(module)]
    if lacking:
        raise ValueError(
            f"{who} needs packages that are not installed, first {lacking[0]}: "
            f"pip install 'tsv_bench[{extra}]'."
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # as of a finder that refuses it
        return False
