"""Checkpoints of one model that do not have the same entries, opened as a merge opens them."""

import pytest
import torch
from made_up.state_dicts import save

from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.inputs import open_inputs

BASE = {"embed_tokens.weight": torch.arange(12.0).reshape(6, 2), "proj.weight": torch.eye(2)}
SHARED = Choices(shared_only=True)


def moved(step, base=BASE):
    return {name: tensor + step for name, tensor in base.items()}


def opened(folder, base, choices=Choices(), **tasks):  # noqa: B008, it is frozen
    for name, state in {"base": base, **tasks}.items():
        torch.save(state, folder / f"{name}.pt")
    paths = {task: folder / f"{task}.pt" for task in tasks}
    return open_inputs(folder / "base.pt", paths, choices=choices)


def refused(*args, **tasks):
    with pytest.raises(ValueError) as error:
        opened(*args, **tasks)
    return str(error.value)


def deltas(inputs, task="a"):
    return {name: delta.clone() for name, delta in inputs.vectors[task].items()}


def test_a_tied_head_that_one_file_has_is_merged_by_its_embedding(tmp_path, caplog):
    caplog.set_level("INFO")
    own = moved(0.5)
    inputs = opened(tmp_path, BASE, a={**own, "lm_head.weight": own["embed_tokens.weight"].clone()})
    assert set(inputs.base) == set(BASE) == set(deltas(inputs))
    assert "a: lm_head.weight: tied to embed_tokens.weight." in caplog.text


def test_a_tied_head_whose_first_row_is_of_padding_and_a_tied_bias_are_found(tmp_path):
    base = {
        "shared.weight": BASE["embed_tokens.weight"].clone(),
        "predictions.bias": torch.zeros(6),
    }
    base["shared.weight"][0] = 0
    copies = {"lm_head.weight": "shared.weight", "predictions.decoder.bias": "predictions.bias"}
    doubled = base | {name: base[other].clone() for name, other in copies.items()}
    assert set(opened(tmp_path, base, a=doubled).vectors["a"]) == set(base)
    assert set(opened(tmp_path, doubled, a=base).vectors["a"]) == set(doubled)
    swapped = {n: t for n, t in doubled.items() if n != "predictions.bias"}
    assert set(opened(tmp_path, doubled, a=swapped).vectors["a"]) == set(doubled)


def test_a_tied_head_that_only_the_pretrained_one_has_stays_tied(tmp_path):
    base = BASE | {"lm_head.weight": BASE["embed_tokens.weight"].clone()}
    inputs = opened(tmp_path, base, a=moved(0.5))
    assert torch.equal(deltas(inputs)["lm_head.weight"], torch.full((6, 2), 0.5))
    once = inputs.once_each()
    assert once.tied == {"lm_head.weight": "embed_tokens.weight"}
    assert set(once.vectors["a"]) == set(BASE)


def test_entries_are_tied_only_where_all_checkpoints_have_them_alike(tmp_path):
    base = BASE | {"lm_head.weight": BASE["embed_tokens.weight"].clone()}
    untied = moved(0.5, base) | {"lm_head.weight": torch.zeros(6, 2)}
    inputs = opened(tmp_path, base, a=moved(0.5, base), b=untied)
    assert inputs.once_each() is inputs


def test_a_head_of_its_own_is_refused_with_both_sides_names(tmp_path):
    head = {"lm_head.weight": torch.ones(6, 2) * torch.arange(2.0)}
    message = refused(tmp_path, BASE, a={**moved(0.5), **head})
    assert message.startswith(
        "a: cannot subtract checkpoints with different parameters: 1 appear in only one of them, "
        "first 'lm_head.weight': the fine-tuned one alone has lm_head.weight. A head that is tied"
    )
    assert "shared_only=true merges what all have" in message
    assert set(opened(tmp_path, BASE, SHARED, a={**moved(0.5), **head}).vectors["a"]) == set(BASE)


def test_a_head_of_zeros_is_not_taken_for_a_copy_of_other_zeros(tmp_path):
    base = BASE | {"zero.weight": torch.zeros(6, 2)}
    message = refused(tmp_path, base, a={**moved(0, base), "score.weight": torch.zeros(6, 2)})
    assert "first 'score.weight'" in message and "Is it a head, or a part of the model" in message


def test_heads_of_other_sizes_are_refused_and_left_out_by_choice(tmp_path):
    base = BASE | {"classifier.weight": torch.ones(2, 2)}
    own = moved(0.5, base) | {"classifier.weight": torch.ones(3, 2)}
    message = refused(tmp_path, base, a=own, b=moved(1, base))
    assert "'classifier.weight' is (2, 2) in the pretrained and (3, 2) in the fine-tuned" in message
    assert "If it is a head, of other classes: shared_only=true" in message
    inputs = opened(tmp_path, base, SHARED, a=own, b=moved(1, base))
    assert set(inputs.vectors["b"]) == set(BASE) and set(inputs.base) == set(base)


def test_a_part_of_a_model_is_merged_by_choice(tmp_path):
    base = {f"vision.{name}": t for name, t in BASE.items()} | {"text.w": torch.ones(3)}
    part = {f"vision.{name}": tensor for name, tensor in moved(0.5).items()}
    assert "the pretrained one alone has text.w" in refused(tmp_path, base, a=part)
    assert set(opened(tmp_path, base, SHARED, a=part).vectors["a"]) == set(part)


def test_the_rest_may_be_that_of_a_task_under_its_names(tmp_path):
    own = {f"bert.{name}": tensor for name, tensor in moved(0.5).items()}
    own |= {"classifier.weight": torch.full((3, 2), 7.0)}
    other = {f"bert.{name}": tensor for name, tensor in moved(1.5).items()}
    choices = Choices(shared_only=True, rest_from="a")
    inputs = opened(tmp_path, BASE, choices, a=own, b=other)
    assert set(inputs.base) == set(own)
    assert torch.equal(inputs.base["bert.proj.weight"], BASE["proj.weight"])
    assert torch.equal(inputs.base["classifier.weight"], own["classifier.weight"])
    assert torch.equal(deltas(inputs, "b")["bert.proj.weight"], torch.full((2, 2), 1.5))
    assert inputs.base.path == tmp_path / "a.pt"  # its layout
    assert inputs.states["pretrained"].path == tmp_path / "base.pt"


def test_embeddings_of_other_sizes_are_refused_cut_filled_or_kept(tmp_path):
    more = moved(0.5) | {"embed_tokens.weight": torch.arange(16.0).reshape(8, 2) + 0.5}
    most = moved(1) | {"embed_tokens.weight": torch.arange(20.0).reshape(10, 2) + 1}
    message = refused(tmp_path, BASE, a=more)
    assert "has 6 rows in the pretrained and 8 in the fine-tuned one" in message
    assert "embeddings=truncate merges the rows that all have" in message
    cut = opened(tmp_path, BASE, Choices(embeddings="truncate"), a=more, b=most)
    assert torch.equal(deltas(cut)["embed_tokens.weight"], torch.full((6, 2), 0.5))
    kept = opened(tmp_path, BASE, Choices(embeddings="pretrained"), a=more, b=most)
    assert set(kept.vectors["a"]) == {"proj.weight"} and set(kept.base) == set(BASE)

    filled = opened(tmp_path, BASE, Choices(embeddings="pad"), a=more, b=most)
    rows = filled.base["embed_tokens.weight"]
    assert torch.equal(rows[:6], BASE["embed_tokens.weight"])
    new = most["embed_tokens.weight"]
    assert torch.equal(rows[6:8], (more["embed_tokens.weight"][6:] + new[6:8]) / 2)
    assert torch.equal(rows[8:], new[8:])  # of the one task that has them
    a, b = (deltas(filled, task)["embed_tokens.weight"] for task in "ab")
    assert torch.equal(a + rows, torch.cat([more["embed_tokens.weight"], new[8:]]))
    assert torch.equal(b + rows, new)
    assert torch.equal(filled.vectors["a"].rows("embed_tokens.weight", 7, 9), a[7:9])


def test_buffers_that_one_file_lacks_are_the_pretrained_ones(tmp_path, caplog):
    caplog.set_level("INFO")
    extra = moved(0.5) | {"rotary.inv_freq": torch.ones(3), "position_ids": torch.arange(4)}
    assert set(opened(tmp_path, BASE, a=extra).vectors["a"]) == set(BASE)
    base = BASE | {"position_ids": torch.arange(5)}
    inputs = opened(tmp_path, base, a=extra, b=moved(1))
    assert set(inputs.vectors["b"]) == set(BASE) and "position_ids" in inputs.base
    assert "buffers that not all files hold, left as pretrained" in caplog.text


def test_old_and_new_names_of_one_model_are_merged(tmp_path, caplog):
    caplog.set_level("INFO")
    base = BASE | {"norm.weight": torch.ones(2), "norm.bias": torch.zeros(2)}
    names = {"norm.weight": "norm.gamma", "norm.bias": "norm.beta"}
    old = {f"module.{names.get(n, n)}": tensor for n, tensor in moved(0.5, base).items()}
    assert all((delta == 0.5).all() for delta in deltas(opened(tmp_path, base, a=old)).values())
    assert "a: names are read 'module', '_orig_mod', gamma and beta read as usual" in caplog.text


def test_wrong_choices_are_named(tmp_path):
    for choices, message in (
        (Choices(shared_only=1), "shared_only=1 is not true or false"),
        (Choices(shared_only=True, rest_from="c"), "rest_from='c' is no task. There are: a."),
        (Choices(rest_from="a"), "rest_from=a needs shared_only=true"),
        (Choices(embeddings="cut"), "embeddings='cut' is unknown. There are: truncate, pad, pret"),
    ):
        assert message in refused(tmp_path, BASE, choices, a=moved(1))


def test_checkpoints_that_share_nothing_are_refused(tmp_path):
    other = {"x": torch.ones(3), "y": torch.ones(4)}
    assert "No name is in both." in refused(tmp_path, BASE, a=other)
    message = refused(tmp_path, BASE, SHARED, a=other)
    assert "the checkpoints share no weights: the pretrained one has embed_tokens.weight" in message


def test_a_compressed_file_is_not_merged_with_a_part_of_its_model(tmp_path):
    from made_up.merges import files, made, pretrained, write_checkpoints

    write_checkpoints(tmp_path)
    made(tmp_path, "tsv_compress", "small", write="compressed")
    part = {name: tensor for name, tensor in pretrained().items() if name != "frozen"}
    save(part, tmp_path / "part.safetensors")
    paths = {"a": tmp_path / "small" / "a.safetensors", "b": tmp_path / "part.safetensors"}
    with pytest.raises(ValueError, match="a is compressed against all of"):
        open_inputs(tmp_path / files()["a"].replace("a.", "base."), paths, choices=SHARED)
