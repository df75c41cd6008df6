"""What a method needs beside task vectors: statistics of images, or a bench to learn on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsv_bench.methods.knobs import check_choice, check_whole, is_number
from tsv_bench.task_vectors.kinds import KINDS

PRETRAINED = "pretrained"  # the argument of methods that see the pretrained weights
BENCH = "bench"  # the argument of methods that learn or search
SPLITS = ("train", "val", "test")
# Classes whose gradients make the Fisher information: one an image, drawn by the network's own
# probabilities, or all, weighted by them.
CLASSES = ("sampled", "exact")
# Keys of a method's yaml that say what it sees; tables show those of `SHOWN` as its knobs.
SHOWN = ("images", "split", "classes")
KEYS = ("needs", "unless", *SHOWN, "transductive", "labels", "alpha_on_seen", "fine_tunes")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method receives as arguments, and of which images it is made."""

    arguments: tuple[str, ...]  # kinds of statistics, or "bench"
    # Of each task, drawn by the seed: a number, a share of the split below 1, or None, all of it.
    images: int | float | None
    split: str = "val"
    transductive: bool = False  # whether images of test may be looked at
    labels: bool = False  # whether their labels are used
    alpha_on_seen: bool = False  # whether alpha is chosen on these images, too
    fine_tunes: bool = False  # whether it fine-tunes the network, as checkpoints are made
    classes: str | None = None  # of the Fisher information: see `CLASSES`

    def __post_init__(self) -> None:
        known = (*KINDS, BENCH)
        if not self.arguments:
            raise ValueError(f"needs is empty: name one at least of {', '.join(known)}.")
        for argument in self.arguments:
            check_choice("needs", argument, known, "what a method can receive")
        self._check_images()
        check_choice("split", self.split, SPLITS, "a split whose images a method may see")
        if "fisher" in self.arguments:
            check_choice("classes", self.classes, CLASSES, "a way to take the classes of an image")
        elif self.classes is not None:
            raise ValueError(
                f"classes={self.classes!r} has no effect: the method does not need fisher."
            )
        for name in ("transductive", "labels", "alpha_on_seen", "fine_tunes"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is neither true nor false.")
        if self.labels and self.split == "test":
            raise ValueError(
                "split=test with labels: no method may look at labels of test images, by which it "
                "is judged. Set method.split=val or method.split=train."
            )
        if (self.split == "test") != self.transductive:
            raise ValueError(
                f"split={self.split} with transductive={str(self.transductive).lower()}: a method "
                f"that looks at test images is transductive, which every table says. Choose both, "
                f"method.split=test method.transductive=true (with + before a key that the yaml "
                f"lacks), or neither."
            )
        if self.fine_tunes and not (self.learns and self.labels):
            raise ValueError(
                "fine_tunes=true: fine-tuning takes the network and labels of images. It goes with "
                "needs: [bench] and labels: true."
            )

    def _check_images(self) -> None:
        if isinstance(self.images, float):
            if not is_number(self.images) or not 0 < self.images < 1:
                raise ValueError(
                    f"images={self.images!r} is no share between 0 and 1: a method sees a number "
                    f"of images of each task, a share of the split, or with null all of it."
                )
        elif self.images is not None:
            check_whole("images", self.images, "the number of images of each task", 1)

    def count(self, total: int) -> int:
        """Return how many images of a split with so many in ``total`` are seen."""
        if self.images is None:
            return total
        if isinstance(self.images, float):
            return max(1, int(self.images * total))
        return self.images

    @property
    def share(self) -> float | None:
        """The share of a split that is seen; None if it is a number of images."""
        if self.images is None:
            return 1.0
        return self.images if isinstance(self.images, float) else None

    @property
    def statistics(self) -> tuple[str, ...]:
        """The kinds of statistics among the arguments."""
        return tuple(argument for argument in self.arguments if argument in KINDS)

    @property
    def learns(self) -> bool:
        """Whether the method needs a bench: images, heads and the network themselves."""
        return BENCH in self.arguments

    @property
    def nothing(self) -> dict[str, Any]:
        """Arguments with which a method only checks its knobs."""
        return {name: None if name == BENCH else {} for name in self.arguments}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that may change a result."""
        return {
            "arguments": list(self.arguments),
            "images": self.images,
            "split": self.split,
            "labels": self.labels,
            "alpha_on_seen": self.alpha_on_seen,
        } | (
            ({"classes": self.classes} if self.classes else {})
            | ({"fine_tunes": True} if self.fine_tunes else {})
        )


def takes_pretrained(settings: Mapping[str, Any]) -> bool:
    """Return whether a method's yaml says that it receives the pretrained weights."""
    needs = settings.get("needs")
    return isinstance(needs, list) and PRETRAINED in needs


def needs_of(settings: Mapping[str, Any]) -> Needs | None:
    """Return what a method's yaml says that it needs of data, or None if it needs none.

    Raises ValueError for a key that is malformed or has no effect.
    """
    found = {key: settings[key] for key in KEYS if key in settings}
    if not found:
        return None
    arguments = found.pop("needs", None)
    if not isinstance(arguments, list) or not all(isinstance(a, str) for a in arguments):
        raise ValueError(
            f"the yaml of {settings['name']} has {', '.join(found) or 'needs'}, and needs is "
            f"{arguments!r}: it lists what the method receives, as in needs: [inputs]."
        )
    arguments = [argument for argument in arguments if argument != PRETRAINED]
    if takes_pretrained(settings) and not arguments:
        if found:
            raise ValueError(
                f"the yaml of {settings['name']} has {', '.join(found)}, which has no effect: "
                f"needs: [{PRETRAINED}] is of weights alone."
            )
        return None
    unless = found.pop("unless", None)  # a knob that, if true, makes the method need nothing
    if unless is not None and settings.get(unless) is True:
        return None
    if "images" not in found:
        raise ValueError(
            f"the yaml of {settings['name']} has needs but no images: how many a task?"
        )
    return Needs(arguments=tuple(arguments), **found)
