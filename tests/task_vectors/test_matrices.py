"""The policy about layers: which parameters are matrices, and which of these are three in one."""

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench import methods
from tsv_bench.methods.matrixwise.tsv import merge_matrix
from tsv_bench.task_vectors.matrices import EMBEDDINGS_AND_HEADS, NOT_MERGED, Matrices, matches
from tsv_bench.task_vectors.merge import merge_layers


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("model.embed_tokens.weight", "embed_tokens", True),  # a part
        ("model.embed_tokens.weight", "model.embed_tokens.weight", True),  # the whole name
        ("model.embed_tokens.weight", "embed_*", True),
        ("model.layers.7.mlp.weight", "model.layers.?.mlp.*", True),
        ("model.layers.17.mlp.weight", "model.layers.?.mlp.*", False),
        ("visual.blocks.3.proj", "visual.*.proj", True),
        ("visual.proj", "visual.*.proj", False),
        ("model.layers.1.weight", "1", True),
        ("model.layers.11.weight", "1", False),  # a part, not some of its letters
        ("shared_expert.weight", "shared", False),
        ("model.embed_tokens.weight", "Embed_tokens", False),
        ("model.embed_tokens.weight", "model.embed_tokens", False),  # neither one part nor all
        ("embed_tokens", "embed_tokens", True),
    ],
)
def test_pattern_fits_the_whole_name_or_one_part(name, pattern, expected):
    assert matches(name, [pattern]) is expected
    assert matches(name, ["no such", pattern]) is expected
    assert not matches(name, [])


CLIP = {
    "visual.proj": True,
    "model.visual.proj": True,  # the paper's files, and ours
    "model.visual.positional_embedding": True,
    "model.visual.transformer.resblocks.11.attn.in_proj_weight": True,
    "model.visual.transformer.resblocks.0.mlp.c_fc.weight": True,
    "model.transformer.resblocks.0.attn.out_proj.weight": True,
    "model.positional_embedding": True,  # the text tower's, frozen in the paper
    "text_projection": False,
    "model.text_projection": False,
    "text_projection.weight": False,
    "model.token_embedding.weight": False,
    "text_model.embeddings.token_embedding.weight": False,  # transformers' CLIP
    "vision_model.embeddings.position_embedding.weight": True,
    "visual_projection.weight": True,
}
LANGUAGE_MODELS = {
    "model.embed_tokens.weight": False,  # Llama, Mistral, Qwen, Gemma
    "lm_head.weight": False,
    "model.layers.0.self_attn.q_proj.weight": True,
    "model.layers.31.mlp.down_proj.weight": True,
    "model.layers.0.mlp.shared_expert.up_proj.weight": True,  # Qwen's mixture of experts
    "tok_embeddings.weight": False,  # Llama as Meta has it
    "output.weight": False,
    "layers.0.attention.wo.weight": True,
    "transformer.wte.weight": False,  # GPT-2
    "transformer.wpe.weight": False,
    "transformer.h.0.attn.c_attn.weight": True,
    "transformer.h.0.mlp.c_proj.weight": True,
    "gpt_neox.embed_in.weight": False,
    "embed_out.weight": False,
    "gpt_neox.layers.0.attention.query_key_value.weight": True,
    "model.decoder.embed_tokens.weight": False,  # OPT
    "model.decoder.embed_positions.weight": False,
    "shared.weight": False,  # T5
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": False,
    "encoder.block.0.layer.0.SelfAttention.q.weight": True,
    "bert.embeddings.word_embeddings.weight": False,
    "bert.embeddings.position_embeddings.weight": False,
    "bert.embeddings.token_type_embeddings.weight": False,
    "bert.encoder.layer.0.output.dense.weight": True,  # an output, yet not the head
    "bert.encoder.layer.0.attention.output.dense.weight": True,
    "transformer.word_embeddings.weight": False,  # Bloom, Falcon
}


@pytest.mark.parametrize(("name", "expected"), (CLIP | LANGUAGE_MODELS).items())
def test_defaults_take_maps_between_activations(name, expected):
    assert Matrices().is_matrix(name, (6, 4)) is expected


def test_compression_takes_the_text_projection_and_merging_does_not():
    assert set(NOT_MERGED) - set(EMBEDDINGS_AND_HEADS) == {"text_projection"}
    assert Matrices(EMBEDDINGS_AND_HEADS).is_matrix("model.text_projection", (6, 4))


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 2), (4, 3, 2, 2), (0, 4), (4, 0)])
def test_only_two_sides_make_a_matrix(shape):
    assert not Matrices(()).is_matrix("w", shape)


def test_own_patterns_replace_the_defaults():
    matrices = Matrices(["visual.*.proj"])
    assert matrices.is_matrix("lm_head.weight", (6, 4))
    assert not matrices.is_matrix("visual.trunk.proj", (6, 4))
    assert Matrices([]).is_matrix("text_projection", (6, 4))


FUSED = {
    "attn.in_proj_weight": ((12, 4), 0),  # PyTorch: three times d, d
    "blocks.0.attn.qkv.weight": ((12, 4), 0),
    "self_attn.qkv_proj.weight": ((12, 4), 0),
    "h.0.attn.c_attn.weight": ((4, 12), 1),  # GPT-2: transposed
    "grouped.qkv_proj.weight": ((8, 4), None),  # grouped queries: not three alike
    "attention.query_key_value.weight": ((12, 4), None),  # head after head
    "mlp.up_proj.weight": ((12, 4), None),
}


@pytest.mark.parametrize(("name", "case"), FUSED.items())
def test_fused_projections_are_split_in_three_and_joined_again(name, case):
    shape, side = case
    matrices = Matrices((), split_qkv=True)
    deltas = randn(5, *shape)
    parts = matrices.split(name, deltas)
    assert matrices.fused_side(name, shape) == side
    assert parts.shape == ((5, 1, *shape) if side is None else (5, 3, 4, 4))
    for delta, own in zip(deltas, parts, strict=True):
        assert torch.equal(matrices.join(name, shape, own.unbind()), delta)
        assert torch.equal(matrices.join(name, shape, matrices.split(name, delta)), delta)
    if side is not None:
        expected = deltas.chunk(3, dim=side + 1)
        for part, chunk in zip(parts.unbind(1), expected, strict=True):
            assert torch.equal(part, chunk)


@pytest.mark.parametrize("name", FUSED)
def test_fused_projections_are_one_matrix_unless_asked(name):
    deltas = randn(5, *FUSED[name][0])
    assert Matrices(()).split(name, deltas).shape == (5, 1, *deltas.shape[1:])


def fused_vectors(num_tasks):
    shapes = {"in_proj_weight": (36, 12), "c_attn.weight": (12, 36), "proj": (12, 20)}
    return {f"task{t}": {n: randn(*s) for n, s in shapes.items()} for t in range(num_tasks)}


def thirds_merged(vectors, name, side, rule):
    thirds = [
        torch.stack([vector[name].chunk(3, dim=side)[i] for vector in vectors.values()])
        for i in range(3)
    ]
    return torch.cat([rule(third) for third in thirds], dim=side)


@pytest.mark.parametrize("rank_fraction", [None, 0.5])
@pytest.mark.parametrize(("name", "side"), [("in_proj_weight", 0), ("c_attn.weight", 1)])
def test_merging_with_split_qkv_is_merging_three_matrices(name, side, rank_fraction):
    vectors = fused_vectors(3)
    whole, split = (
        methods.tsv_merge(vectors, rank_fraction=rank_fraction, split_qkv=split_qkv)["task0"]
        for split_qkv in (False, True)
    )
    expected = thirds_merged(vectors, name, side, lambda d: merge_matrix(d, rank_fraction))
    torch.testing.assert_close(split[name], expected, **close)
    assert not torch.allclose(whole[name], expected, rtol=1e-2)
    assert torch.equal(split["proj"], whole["proj"])


@pytest.mark.parametrize(("name", "side"), [("in_proj_weight", 0), ("c_attn.weight", 1)])
def test_compressing_with_split_qkv_is_compressing_three_matrices(name, side):
    vectors = fused_vectors(3)
    served = methods.tsv_compress(vectors, split_qkv=True)["task1"]
    for part, chunk in zip(
        served[name].chunk(3, side), vectors["task1"][name].chunk(3, side), strict=True
    ):
        assert torch.linalg.matrix_rank(part) == 4  # a third of 12, in every third
        tail = torch.linalg.svdvals(chunk)[4:].norm()
        torch.testing.assert_close((part - chunk).norm(), tail, **close)


def test_every_layer_rule_sees_the_parts():
    vectors = fused_vectors(2)
    seen = []

    def rule(deltas):
        seen.append(tuple(deltas.shape))
        return deltas[0] * len(seen)

    merged = merge_layers(vectors.values(), rule, matrices=Matrices((), split_qkv=True))
    seen.clear()  # of what the type checker of the tests looked at
    first, second, third = merged["c_attn.weight"].chunk(3, dim=1)
    assert seen == [(2, 12, 12)] * 3
    own = vectors["task0"]["c_attn.weight"].chunk(3, dim=1)
    assert all(map(torch.equal, (first, second, third), (own[0], 2 * own[1], 3 * own[2])))


@pytest.mark.parametrize("exclude", ["lm_head", ["lm_head", 3], [None], [["lm_head"]]])
def test_exclude_that_is_no_list_of_patterns_is_refused(exclude):
    with pytest.raises(ValueError, match="exclude=.* is not a list of patterns"):
        Matrices(exclude)


@pytest.mark.parametrize("split_qkv", ["true", 1, None])
def test_split_qkv_that_is_neither_is_refused(split_qkv):
    with pytest.raises(ValueError, match="split_qkv=.* is neither true nor false"):
        Matrices((), split_qkv)


@pytest.mark.parametrize("method", [methods.tsv_merge, methods.tsv_compress])
def test_methods_refuse_wrong_policies_before_anything_is_read(method):
    with pytest.raises(ValueError, match="exclude='lm_head' is not a list of patterns"):
        method({}, exclude="lm_head")
    with pytest.raises(ValueError, match="svd='qr'.*'gram', 'svd'"):
        method({}, svd="qr")
