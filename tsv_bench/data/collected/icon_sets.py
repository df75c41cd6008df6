"""Sets of icons that designers gave names to: their fonts, and which character is which icon."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image

from .originals import Masks, mask_of
from .packages import file_in

# Set -> its fonts, and what tells the names: a file beside them, or "" for the fonts themselves.
_QTA, _ICONIPY = "qtawesome/fonts", "iconipy/assets"
_GOOGLE = {"outlined": "Outlined", "round": "Round", "sharp": "Sharp"}
ICON_SETS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "bootstrap": (("tkinter_icons_bs/assets/bootstrap.ttf",), ""),
    "boxicons": ((f"{_ICONIPY}/boxicons/boxicons.ttf",), f"{_ICONIPY}/boxicons/boxicons.css"),
    "codicon": ((f"{_QTA}/codicon-0.0.36.ttf",), ""),
    "font_awesome": (
        tuple(f"{_QTA}/fontawesome6-{kind}-webfont-6.7.2.ttf" for kind in ("solid", "regular")),
        "",
    ),
    "lineicons": ((f"{_ICONIPY}/lineicons/lineicons.ttf",), ""),
    "lucide": ((f"{_ICONIPY}/lucide/lucide.ttf",), ""),
    "material": (
        tuple(
            f"{_ICONIPY}/material_icons_{kind}_regular/MaterialIcons{name}-Regular.otf"
            for kind, name in _GOOGLE.items()
        ),
        "",
    ),
    "material_design": ((f"{_QTA}/materialdesignicons6-webfont-6.9.96.ttf",), ""),
    "phosphor": ((f"{_QTA}/phosphor-1.3.0.ttf",), f"{_QTA}/phosphor-charmap-1.3.0.json"),
    "remix": ((f"{_QTA}/remixicon-2.5.0.ttf",), ""),
    "typicons": ((f"{_ICONIPY}/typicons/typicons.ttf",), ""),
}
# It warns of spare bytes behind the names of some fonts, which are read all the same.
logging.getLogger("fontTools.ttLib.tables._p_o_s_t").setLevel(logging.ERROR)

# Designers call the same picture in another style by the same name with one of these.
BEFORE = re.compile(r"^(bx|bxs)-")
AFTER = re.compile(r"-(bold|border|fill|filled|light|line|outline|thick|thin)$")
IN_CSS = re.compile(r'\.([\w-]+):before\s*\{\s*content:\s*"\\([0-9a-f]+)"')


def bare(name: str) -> str:
    """Return an icon's name without its style: ``heart`` for ``bxs-heart`` and ``heart-fill``."""
    name = BEFORE.sub("", name.lower().replace("_", "-"))
    while (shorter := AFTER.sub("", name)) != name:
        name = shorter
    return name


@cache
def glyphs(icon_set: str) -> Mapping[str, tuple[tuple[Path, str], ...]]:
    """Return, for each bare name of a set, the fonts and characters of its styles.

    Raises ValueError if there is no such set, or its package is not installed.
    """
    if icon_set not in ICON_SETS:
        raise ValueError(f"no set of icons is {icon_set!r}; there are {', '.join(ICON_SETS)}.")
    fonts, names = ICON_SETS[icon_set]
    found: dict[str, list[tuple[Path, str]]] = {}
    for path in map(file_in, fonts):
        for name, character in sorted(_characters(path, names).items()):
            found.setdefault(bare(name), []).append((path, character))
    return {name: tuple(styles) for name, styles in found.items()}


def _characters(font: Path, names: str) -> dict[str, str]:
    """Return the character of each named icon of a font."""
    if names.endswith(".json"):
        table = json.loads(file_in(names).read_text())
        return {name: chr(int(code, 16)) for name, code in table.items()}
    if names.endswith(".css"):
        found = IN_CSS.findall(file_in(names).read_text())
        return {name: chr(int(code, 16)) for name, code in found}
    with TTFont(font, lazy=True) as typeface:
        return {name: chr(code) for code, name in typeface.getBestCmap().items()}


def icon_masks(names: Mapping[str, Sequence[str | int]], sets: Sequence[str]) -> Masks:
    """Return the masks of the icons that have one of each class' names; each set is a maker.

    A name may be of one set alone, as ``phosphor/spade``: for others a spade digs.
    """
    masks: dict[int, dict[str, list[Image.Image]]] = {}
    for label, of_class in enumerate(names.values()):
        for icon_set in sets:
            found = [
                mask_of(str(font), character)
                for name in map(str, of_class)
                for font, character in glyphs(icon_set).get(name.removeprefix(f"{icon_set}/"), ())
            ]
            if drawn := [mask for mask in found if mask is not None]:
                masks.setdefault(label, {})[icon_set] = drawn
    return masks
