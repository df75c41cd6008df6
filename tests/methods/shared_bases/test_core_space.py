"""Core Space is its authors' definition, and without loss."""

import math
from functools import partial

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench import methods
from tsv_bench.task_vectors.lazy import PlainLayers

SHAPES = {"tall": (20, 12), "wide": (12, 20), "attn.qkv": (36, 12)}


class Factored(PlainLayers):
    """A task vector of products; of a layer without one zeros."""

    def __init__(self, products):
        zeros = {n: torch.zeros(shape, dtype=torch.float64) for n, shape in SHAPES.items()}
        super().__init__(zeros | {name: left @ right for name, (left, right) in products.items()})
        self.products = products

    def factor_rank(self, name):
        return len(self.products[name][1]) if name in self.products else 0

    def factors(self, name):
        return self.products.get(name)


def adapters(ranks=(2, 2, 2), dtype=torch.float64):
    """Adapters of these ranks; the last task's are larger."""
    return {
        f"task{t}": Factored(
            {
                name: (((t + 1) * randn(m, r)).to(dtype), randn(r, n).to(dtype))
                for name, (m, n) in SHAPES.items()
            }
        )
        for t, r in enumerate(ranks)
    }


def whole(vectors):
    return {task: dict(vector.items()) for task, vector in vectors.items()}


def by_definition(factors, merge):
    """As the authors write it: reference bases by SVD, aligned cores, and back."""
    u_ref = torch.linalg.svd(torch.cat([b for b, _ in factors], 1), full_matrices=False).U
    vh_ref = torch.linalg.svd(torch.cat([a for _, a in factors]), full_matrices=False).Vh
    return u_ref @ merge([u_ref.mT @ b @ a @ vh_ref.mT for b, a in factors]) @ vh_ref


def tsv(cores):
    """Each task keeps 1 / tasks of its triplets; polar factors by SVD of what they have."""
    kept = min(cores[0].shape) // len(cores)
    u, s, vh = zip(*map(torch.linalg.svd, cores), strict=True)
    polar = []
    for side in ([x[:, :kept] for x in u], [x[:kept].mT for x in vh]):
        left, _, right = torch.linalg.svd(torch.cat(side, 1), full_matrices=False)
        polar.append(left @ right)
    return polar[0] * torch.cat([x[:kept] for x in s]) @ polar[1].mT


def ties(cores, density=0.2):
    kept = []
    for core in cores:
        lowest = core.abs().flatten().sort().values[-math.ceil(density * core.numel())]
        kept.append(torch.where(core.abs() >= lowest, core, 0))
    kept = torch.stack(kept)
    agrees = kept * kept.sum(0).sign() > 0
    return (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def isotropic(rule):
    def merge(cores):
        u, s, vh = torch.linalg.svd(rule(cores))
        return s.mean() * u @ vh

    return merge


# Where ranks differ, the authors' TSV takes arbitrary singular vectors of zeros. We do not.
CASES = {
    "tsv": ({"rule": "tsv"}, tsv, (2, 2, 2)),
    "tsv, of more than there is room for": ({"rule": "tsv"}, tsv, (5, 5, 5)),
    "tsv, isotropic": ({"rule": "tsv", "isotropic": True}, isotropic(tsv), (2, 2, 2)),
    "sum": ({"rule": "sum"}, sum, (1, 3, 2)),
    "sum, isotropic": ({"rule": "sum", "isotropic": True}, isotropic(sum), (1, 3, 2)),
    "ties": ({"rule": "ties"}, ties, (1, 3, 2)),
    "ties, dense": ({"rule": "ties", "density": 0.6}, partial(ties, density=0.6), (1, 3, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_core_space_is_its_definition(case):
    knobs, merge, ranks = CASES[case]
    vectors = adapters(ranks)
    served = methods.core_space(vectors, **knobs)["task0"]
    for name in SHAPES:
        factors = [vector.factors(name) for vector in vectors.values()]
        torch.testing.assert_close(served[name], by_definition(factors, merge), **close)


TWINS = {
    "tsv": ({}, methods.tsv_merge),
    "sum": ({}, methods.task_arithmetic),
    "sum, isotropic": ({"isotropic": True}, lambda v: methods.iso_c(v, mean_over="spanned")),
}


@pytest.mark.parametrize("case", TWINS)
def test_rules_that_know_no_basis_are_those_of_the_whole_deltas(case):
    """Also in float32, where the largest difference of twenty draws is 4e-7 of the largest."""
    rule, (knobs, method) = case.split(",")[0], TWINS[case]
    for dtype, near in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        vectors = adapters(dtype=dtype)
        for given in (vectors, whole(vectors)) if dtype == torch.float64 else (vectors,):
            found = methods.core_space(given, rule=rule, **knobs)["task0"]
            for name, expected in method(whole(vectors))["task0"].items():
                scale = expected.abs().max()
                assert found[name].dtype == dtype
                torch.testing.assert_close(found[name] / scale, expected / scale, rtol=0, atol=near)


def test_a_whole_checkpoint_is_its_own_factors():
    vectors = random_vectors(3)
    served = methods.core_space(vectors, rule="ties", density=0.3)["task0"]
    for name in ("proj", "c_proj.weight"):
        deltas = [vector[name] for vector in vectors.values()]
        u = torch.linalg.svd(torch.cat(deltas, 1), full_matrices=False).U
        vh = torch.linalg.svd(torch.cat(deltas), full_matrices=False).Vh
        merged = ties([u.mT @ delta @ vh.mT for delta in deltas], 0.3)
        torch.testing.assert_close(served[name], u @ merged @ vh, **close)


def test_fused_projections_are_one_matrix_unless_split():
    vectors = adapters()
    served = methods.core_space(vectors, rule="ties", split_qkv=True)["task0"]
    for index, part in enumerate(served["attn.qkv"].chunk(3)):
        both = [vector.factors("attn.qkv") for vector in vectors.values()]
        factors = [(left.chunk(3)[index], right) for left, right in both]
        torch.testing.assert_close(part, by_definition(factors, ties), **close)


def test_a_task_without_an_adapter_of_a_matrix_does_not_count_for_it():
    vectors = adapters()
    idle = Factored({})
    for rule in ("tsv", "sum", "ties"):
        served = methods.core_space(vectors, rule=rule)["task0"]
        more = methods.core_space(vectors | {"idle": idle}, rule=rule)["task0"]
        torch.testing.assert_close(dict(more.items()), dict(served.items()), **close)
