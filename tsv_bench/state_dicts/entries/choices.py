"""What becomes of entries that not all checkpoints have, as a user chooses it."""

from collections.abc import Collection
from dataclasses import dataclass

EMBEDDINGS = ("truncate", "pad", "pretrained")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is to become of entries that not all checkpoints have, or have with other shapes.

    ``shared_only``: those that all have are merged, the rest is the pretrained one's, or
    ``rest_from`` a task. ``embeddings``: of rows that not all have, one of `EMBEDDINGS`.
    ``measured``: nothing is written, so that messages have nothing to say of the rest.
    """

    shared_only: bool = False
    rest_from: str | None = None
    embeddings: str | None = None
    measured: bool = False

    @property
    def verb(self) -> str:
        """What is done with entries that all have."""
        return "measures" if self.measured else "merges"

    def check(self, tasks: Collection[str]) -> None:
        """Raise ValueError for a value that there is not."""
        if not isinstance(self.shared_only, bool):
            raise ValueError(f"shared_only={self.shared_only!r} is not true or false.")
        if self.rest_from is not None and self.rest_from not in tasks:
            raise ValueError(
                f"rest_from={self.rest_from!r} is no task. There are: {', '.join(tasks)}."
            )
        if self.rest_from is not None and not self.shared_only:
            raise ValueError(
                f"rest_from={self.rest_from} needs shared_only=true: it says where entries come "
                f"from that not all checkpoints have."
            )
        if self.embeddings is not None and self.embeddings not in EMBEDDINGS:
            raise ValueError(
                f"embeddings={self.embeddings!r} is unknown. There are: {', '.join(EMBEDDINGS)}."
            )
