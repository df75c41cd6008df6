"""A task: one data set with class names, prompts and splits."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "val", "test")

# Called with a split, yields images (PIL, or uint8 height x width x 3) with their labels.
Source = Callable[[str], Iterator[tuple[Any, int]]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One data set as the benchmark uses it; conf/task/ has one yaml for each."""

    name: str
    label: str
    class_names: Sequence[str]  # in the order of the labels
    templates: Sequence[str]  # prompts, with {} for the class name
    epochs: int  # of fine-tuning
    source: Source

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "templates", tuple(self.templates))
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

    @property
    def prompts(self) -> list[list[str]]:
        """For each class, every template filled in."""
        return [[t.format(name) for t in self.templates] for name in self.class_names]

    @property
    def fingerprint(self) -> str:
        """Changes when the images or labels may: a hash of the source and the class names."""
        described = [self.name, self.class_names, describe(self.source)]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def describe(source: Source) -> Any:
    """The source as plain data: its function, the version of its images, and its settings."""
    function = getattr(source, "func", source)
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "version": getattr(function, "version", 0),
        "settings": json.loads(json.dumps(getattr(source, "keywords", {}), default=dict)),
    }
