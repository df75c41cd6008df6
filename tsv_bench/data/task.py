"""A task: one data set with class names, prompts and splits."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsv_bench.wording.escaping import check_line, check_name

SPLITS = ("train", "val", "test")

# Called with the name of a split, yields pairs of an image (PIL, or uint8 [height, width, 3]) and
# its label.
Source = Callable[[str], Iterator[tuple[Any, int]]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One data set as the benchmark uses it. conf/task/ has a yaml for each."""

    name: str
    label: str = ""  # "": made of the name
    class_names: Sequence[str] | None = None  # in the order of the labels; None: the source's
    templates: Sequence[str] = ("a photo of a {}",)  # prompts, with {} for the class name
    epochs: int = 10  # of fine-tuning
    source: Source
    sizes: Mapping[str, int] | None = None  # images per split; None: not checked
    variant: str = ""  # how it deviates from the benchmark's task; tables show it

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a task")
        object.__setattr__(self, "label", self.label or self.name.replace("_", " ").capitalize())
        if self.class_names is None:
            if not getattr(self.source, "class_names", None):
                raise ValueError(f"task {self.name!r} has no class_names, nor has its source.")
            object.__setattr__(self, "class_names", self.source.class_names)
        check_line(self.label, f"the label of task {self.name!r}")
        check_line(self.variant, f"the variant of task {self.name!r}")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "templates", tuple(self.templates))
        for what, words in (("class", self.class_names), ("template", self.templates)):
            if other := [word for word in words if not isinstance(word, str)]:
                raise ValueError(
                    f"task {self.name!r} has the {what} {other[0]!r}, which is no text. YAML reads "
                    f"no, yes, 0 or 007 as truth values and numbers: put the name in quotes, as in "
                    f"['no', 'yes']."
                )
        if odd := [name for name in self.class_names if self.class_names.count(name) > 1]:
            raise ValueError(f"task {self.name!r} has the class {odd[0]!r} twice.")
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(
                f"task {self.name!r} has epochs={self.epochs!r}; fine-tuning needs at least one."
            )
        if not self.templates or any("{}" not in template for template in self.templates):
            raise ValueError(
                f"task {self.name!r} needs templates with {{}} for the class name; "
                f"found {list(self.templates)}."
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Check classes and sizes against what the source says of itself.

        Raises ValueError if they differ.
        """
        if classes := getattr(self.source, "num_classes", None):
            if classes != len(self.class_names):
                raise ValueError(
                    f"task {self.name!r} has {len(self.class_names)} class names, its source "
                    f"{classes} classes."
                )
        if self.sizes is None:
            return
        sizes = dict(self.sizes)
        object.__setattr__(self, "sizes", sizes)
        if set(sizes) != set(SPLITS) or any(
            not isinstance(n, int) or n < 1 for n in sizes.values()
        ):
            raise ValueError(
                f"task {self.name!r} needs sizes with the images of {', '.join(SPLITS)}; "
                f"found {sizes}."
            )
        if count := getattr(self.source, "num_images", None):
            found = {split: count(split) for split in SPLITS}
            if found != sizes:
                raise ValueError(
                    f"task {self.name!r} expects {sizes} images, its source has {found} after the "
                    f"validation split."
                )

    @property
    def prompts(self) -> list[list[str]]:
        """The filled-in templates of each class."""
        return [[t.format(name) for t in self.templates] for name in self.class_names]

    @property
    def fingerprint(self) -> str:
        """A hash of the name, the class names and the source: other images, another hash."""
        described = [self.name, self.class_names, describe(self.source)]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def describe(source: Source) -> Any:
    """Return a source as plain data: its function, the version of its images, its settings.

    The function's full name is hashed into `Task.fingerprint`, hence into the names of caches and
    checkpoints: a source that moves to another module loses them.
    """
    if hasattr(source, "settings"):
        function, settings = type(source), source.settings()
    else:
        function, settings = getattr(source, "func", source), getattr(source, "keywords", {})
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "version": getattr(function, "version", 0),
        "settings": json.loads(json.dumps(settings, default=_plain)),
    }


def _plain(value: Mapping | Sequence) -> dict | list:
    """Return the configuration's own kind of mapping or list as json knows it."""
    return dict(value) if isinstance(value, Mapping) else list(value)
