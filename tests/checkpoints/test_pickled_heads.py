"""Heads as the paper's code pickles them: their weights are read, no code in a file is run."""

import os
import re
import sys

import pytest
import torch
from made_up.pickles import Encoder, Head, pickle_as

from tsv_bench.checkpoints.pickled_heads import STUBS, pickled_by, read_head

CLASSES, DIM = 5, 7


class Trap:
    """A pickle that makes a folder if its code is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "head.pt"


@pytest.fixture
def weights():
    return 100 * torch.randn(CLASSES, DIM)


@pytest.mark.parametrize("module", ["src.models.modeling", "src.modeling"])
def test_weights_of_a_head_are_read_without_its_code(path, weights, module):
    found = read_head(pickle_as(Head(weights), path, module))
    assert torch.equal(found, weights) and found.dtype == torch.float32
    assert not found.requires_grad
    assert not {"src", "src.modeling", "src.models"} & set(sys.modules)


def test_heads_of_before_torch_1_6_are_refused(path, weights):
    """The old format looks classes up in a way that torch does not offer without executing code."""
    pickle_as(Head(weights), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=f"{path} is a whole module in torch's old.*heads=text"):
        read_head(path)


def test_reading_a_head_leaves_nothing_allowed(path, weights):
    before = torch.serialization.get_safe_globals()
    read_head(pickle_as(Head(weights), path))
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(Exception, match="src.models.modeling.ClassificationHead was not an allow"):
        torch.load(path, weights_only=True)
    assert not any(hasattr(stub, "forward") for stub in STUBS)


def test_heads_of_half_precision_become_float32(path, weights):
    found = read_head(pickle_as(Head(weights).half(), path))
    assert found.dtype == torch.float32 and torch.equal(found, weights.half().float())


@pytest.mark.parametrize("place", ["alone", "in a list", "in a head"])
def test_code_in_a_file_is_not_run(path, weights, tmp_path, place):
    trap = Trap(tmp_path / "sprung")
    if place == "in a head":
        head = Head(weights)
        head.extra = trap
        pickle_as(head, path)
    else:
        torch.save(trap if place == "alone" else [1, trap], path)
    needed = re.escape(f"{os.mkdir.__module__}.mkdir, which was not executed")
    with pytest.raises(ValueError, match=f"{path} needs code to be run, {needed}.*heads=text"):
        read_head(path)
    assert pickled_by(path) is None
    assert not trap.path.exists()
    if place != "in a head":  # whose module is not there
        torch.load(path, weights_only=False)
        assert trap.path.exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda head: head.bias.data.fill_(-0.25), "has a bias, up to 0.25; zero-shot heads have"),
        (lambda head: setattr(head, "normalize", False), "image features that are not normalized"),
        (lambda head: head.weight.data[0].fill_(torch.nan), "holds NaN or infinity"),
        (lambda head: setattr(head, "weight", None), "no weights of classes x dim"),
        (lambda head: setattr(head.weight, "data", torch.ones(3)), "no weights of classes x dim"),
    ],
)
def test_heads_that_cannot_be_used_are_refused(path, weights, changed, told):
    head = Head(weights)
    changed(head)
    with pytest.raises(ValueError, match=told):
        read_head(pickle_as(head, path))


def test_a_head_without_a_bias_or_a_switch_is_one(path, weights):
    head = Head(weights)
    head.bias = None
    del head.normalize
    assert torch.equal(read_head(pickle_as(head, path)), weights)


@pytest.mark.parametrize("content", [{"weight": torch.ones(2, 3)}, torch.ones(2, 3), [1]])
def test_other_content_is_no_head(content, path):
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"is no head: it holds a {type(content).__name__}, expec"):
        read_head(path)


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_damaged_head_is_named(path, weights, kept):
    pickle_as(Head(weights), path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a whole torch file")):
        read_head(path)


def test_a_head_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        read_head(path)


@pytest.mark.parametrize(
    ("module", "whose"),
    [
        ("src.modeling", "mlfoundations/task_vectors"),
        ("src.models.modeling", "the paper's code"),
        ("mine", None),
    ],
)
def test_whole_pickled_encoders_are_known_by_their_class(path, module, whose):
    assert pickled_by(pickle_as(Encoder(), path, module, "ImageEncoder")) == whose


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"text", None])
def test_what_is_no_pickle_is_no_encoder(content, path):
    if content is not None:
        path.write_bytes(content)
    assert pickled_by(path) is None
