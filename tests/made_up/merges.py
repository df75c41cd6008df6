"""Tiny checkpoints to merge, and both ways to merge them."""

from functools import partial
from pathlib import Path

import torch
from made_up.state_dicts import save
from stand_ins.commands import tsv

from tsv_bench import methods
from tsv_bench.merging import merge_files
from tsv_bench.state_dicts.state_dict import open_state_dict

TASKS = ("a", "b")


def pretrained(dtype=torch.float32):
    """Matrices of three forms, what is averaged, what no task changes, integer buffers."""
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "visual.conv1.weight": (4, 3, 2, 2),
        "visual.proj": (12, 12),
        "blocks.0.in_proj_weight": (36, 12),
        "blocks.0.in_proj_bias": (36,),
        "blocks.0.c_proj.weight": (12, 30),
        "text_projection": (6, 6),
        "logit_scale": (),
        "frozen": (5, 4),
    }
    state = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    buffers = {"steps": torch.tensor(7), "position_ids": torch.arange(6)[None]}
    return {name: tensor.to(dtype) for name, tensor in state.items()} | buffers


def finetuned(seed, dtype=torch.float32):
    """A tenth of a step away; the integer buffers count on."""
    generator = torch.Generator().manual_seed(seed + 1)
    state = pretrained(dtype)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            state[name] = tensor + 1 + seed
        elif name != "frozen":
            delta = 0.1 * torch.randn(tensor.shape, generator=generator)
            state[name] = (tensor.float() + delta).to(dtype)
    return state


def write_checkpoints(folder, tasks=TASKS, dtype=torch.float32):
    """base.safetensors and <task>.safetensors; the fine-tuned states by task."""
    folder.mkdir(exist_ok=True)
    save(pretrained(dtype), folder / "base.safetensors")
    states = {task: finetuned(seed, dtype) for seed, task in enumerate(tasks)}
    for task, state in states.items():
        save(state, folder / f"{task}.safetensors")
    return states


def files(tasks=TASKS):
    return {task: f"{task}.safetensors" for task in tasks}


def merge(folder, output, *arguments, base="base.safetensors", tuned=None):
    """tsv-merge in ``folder``; what it printed, when it went well."""
    named = ", ".join(f"{task}: {path}" for task, path in (tuned or files()).items())
    paths = [f"pretrained={base}", f"finetuned={{{named}}}", f"output={output}"]
    result = tsv(folder, "merge", *paths, "cache.folder=null", *arguments)
    assert result.code == 0, result.err
    return result


def made(folder, method, output, *, base="base.safetensors", tuned=None, knobs=None, **settings):
    """By the function, which takes a tenth of the command's time; every output, read."""
    serve = partial(getattr(methods, method), **(knobs or {}))
    tuned = {task: folder / path for task, path in (tuned or files()).items()}
    done = merge_files.merge(
        serve, base and folder / base, tuned, folder / output, progress=False, **settings
    )
    return [dict(open_state_dict(path)) for path in done.outputs]


def merge_to_file():
    """What a process does that merges the checkpoints of this folder to out.safetensors."""
    made(Path(), "tsv_merge", "out.safetensors")


def merge_again():
    """What a process does that replaces a merge of this folder."""
    made(Path(), "tsv_merge", "out", base="safetensors", overwrite=True)


def same(found, expected):
    """Same names, types and values, to the last bit."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name].double(), tensor.double()), name  # float8 has no equal
