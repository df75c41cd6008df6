"""Letters of typefaces."""

from collections.abc import Sequence

from .originals import Masks, mask_of
from .packages import file_in


def letter_masks(letters: Sequence[str], typefaces: Sequence[str]) -> Masks:
    """Return the masks of each class' characters in some typefaces; each is a maker."""
    return {
        label: {
            place: [mask_of(str(file_in(place)), character) for character in characters]
            for place in typefaces
        }
        for label, characters in enumerate(letters)
    }
