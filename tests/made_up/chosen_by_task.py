"""A method with a knob that is chosen for each task."""

from functools import partial

from tsv_bench import methods
from tsv_bench.methods.method import Choice, Method


def choice(**changes):
    settings = {
        "knob": "mask_lambda",
        "candidates": [0.2, 0.4, 0.6],
        "default": 0.4,
        "serve": methods.tall_mask_ta,
    }
    return Choice(**settings | changes)


def tall(mask_lambda=None, **changes):
    return Method(
        name="tall_mask_ta", label="TALL", alphas=[1.0], knobs={"mask_lambda": mask_lambda},
        serve=partial(methods.tall_mask_ta, mask_lambda=mask_lambda), choice=choice(**changes),
    )  # fmt: skip
