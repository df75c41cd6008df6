"""Genes become numbers of layers by task and depth."""

import torch

from tsv_bench.methods.evolved.genotype import Genotype

LAYERS = ["conv1.weight", *(f"blocks.{n}.mlp.weight" for n in range(6)), "proj"]


def test_one_group_has_a_number_for_each_task():
    genotype = Genotype(["a", "b"], LAYERS, 1)
    genes = torch.tensor([0.3, 0.7])
    numbers = genotype.numbers(genes)
    assert genotype.num_genes == 2
    assert all(numbers(name).equal(genes) for name in LAYERS)


def test_groups_are_equal_shares_of_a_stack_and_the_rest_is_in_the_first():
    genotype = Genotype(["a", "b"], LAYERS, 3)
    numbers = genotype.numbers(torch.arange(6.0))
    found = [int(numbers(name)[0]) // 2 for name in LAYERS]
    assert found == [0, 0, 0, 1, 1, 2, 2, 0]
    assert genotype.plain(torch.arange(6.0))[1] == {"a": 2.0, "b": 3.0}
