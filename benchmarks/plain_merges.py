"""Plain merges of four language models beside mergekit's: whole processes on the same files.

.venv/bin/python benchmarks/plain_merges.py [--busy] [--repeats 3] [--mergekit PYTHON] [FOLDER]

Makes a pretrained and four fine-tuned models of 0.39 billion parameters (random, in bfloat16, with
Qwen2's names, two shards each) in FOLDER, or a temporary one, once. Prints wall time, CPU time and
peak memory of each merge by `tsv-merge` and by mergekit, one after the other, and their ratio.
``--busy``: beside a process that keeps one core busy. ``--mergekit``: a Python that has mergekit
installed, the extra ``tsv_bench[mergekit]``, in an environment of its own, as its pins differ from
ours; without it only our own times are printed.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = {
    "layers": 24,
    "hidden": 896,
    "intermediate": 4864,
    "vocabulary": 32000,
    "keys": 128,
}
TASKS = ("code", "maths", "chat", "law")
# Bytecode is kept, as it is of installed packages.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
DELTA = 0.01  # of a weight's standard deviation, which is 0.02
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "tie_word_embeddings": True,
}
# Ours -> mergekit's method and its parameters; None: mergekit has no such method.
MERGES = {
    "method=weight_average": ("linear", {"weight": 1.0, "normalize": True}, {}),
    "method=weight_average pretrained=null": ("linear", {"weight": 1.0, "normalize": True}, {}),
    "method=task_arithmetic alpha=0.3": ("task_arithmetic", {"weight": 0.3}, {"normalize": False}),
    "method=ties method.density=0.2 alpha=1": (
        "ties", {"weight": 1.0, "density": 0.2}, {"normalize": True}),
    "method=ties method.density=0.2 method.scope=tensor alpha=1": (
        "ties", {"weight": 1.0, "density": 0.2}, {"normalize": True}),
    "method=dare_ties method.density=0.5 method.trim_density=1 alpha=1": (
        "dare_ties", {"weight": 1.0, "density": 0.5}, {"normalize": True}),
    "method=dare_ta method.density=0.5 alpha=0.3": (
        "dare_linear", {"weight": 0.3, "density": 0.5}, {"normalize": False}),
    "method=breadcrumbs alpha=0.3": (
        "breadcrumbs", {"weight": 0.3, "density": 0.85, "gamma": 0.01}, {"normalize": False}),
    "method=magmax alpha=1": None,
    "method=consensus_ta alpha=0.3": None,
    "method=lata alpha=0.3": None,
}  # fmt: skip


def shapes(layers, hidden, intermediate, vocabulary, keys):
    """Return the parameters of Qwen2, with their shapes."""
    found = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        for kind, rows in (("q", hidden), ("k", keys), ("v", keys)):
            found[f"{block}.self_attn.{kind}_proj.weight"] = (rows, hidden)
            found[f"{block}.self_attn.{kind}_proj.bias"] = (rows,)
        found[f"{block}.self_attn.o_proj.weight"] = (hidden, hidden)
        found[f"{block}.mlp.gate_proj.weight"] = (intermediate, hidden)
        found[f"{block}.mlp.up_proj.weight"] = (intermediate, hidden)
        found[f"{block}.mlp.down_proj.weight"] = (hidden, intermediate)
        found[f"{block}.input_layernorm.weight"] = (hidden,)
        found[f"{block}.post_attention_layernorm.weight"] = (hidden,)
    return found | {"model.norm.weight": (hidden,)}


def make(folder, dtype=torch.bfloat16, delta=DELTA, **sizes):
    """Write the five models, unless they are there; return their folders, pretrained first."""
    sizes = sizes or SIZES
    config = CONFIG | {
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["intermediate"],
        "num_attention_heads": sizes["hidden"] // 64 or 1,
        "num_key_value_heads": max(sizes["keys"] // 64, 1),
        "num_hidden_layers": sizes["layers"],
        "vocab_size": sizes["vocabulary"],
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    models = {name: folder / name for name in ("base", *TASKS)}
    for number, (name, path) in enumerate(models.items()):
        if (path / "model.safetensors.index.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        first = torch.Generator().manual_seed(0)
        own = torch.Generator().manual_seed(number)
        state = {}
        for layer, shape in shapes(**sizes).items():
            weight = torch.randn(shape, generator=first)
            if name != "base":
                weight = weight.add_(torch.randn(shape, generator=own), alpha=delta)
            state[layer] = weight.mul_(0.02).to(dtype)
        names, half = list(state), len(state) // 2
        shards = {
            "model-00001-of-00002.safetensors": names[:half],
            "model-00002-of-00002.safetensors": names[half:],
        }
        for file, layers in shards.items():
            save_file({n: state[n] for n in layers}, path / file, metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(config))
        total = sum(tensor.nbytes for tensor in state.values())
        index = {
            "metadata": {"total_size": total},
            "weight_map": {layer: file for file, layers in shards.items() for layer in layers},
        }
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return models


def ours(models, arguments, output):
    """Return the command that merges by tsv-merge."""
    tasks = ", ".join(f"{task}: {models[task]}" for task in TASKS)
    pretrained = [] if "pretrained=" in arguments else [f"pretrained={models['base']}"]
    return [
        sys.executable, "-m", "tsv_bench.cli.merge", *arguments.split(), *pretrained,
        f"finetuned={{{tasks}}}", f"output={output}",
    ]  # fmt: skip


def theirs(models, merge, output, python, dtype="bfloat16"):
    """Return the command that merges by mergekit."""
    method, per_model, parameters = merge
    named = [{"model": str(models[task]), "parameters": dict(per_model)} for task in TASKS]
    config = {"merge_method": method, "models": named, "dtype": dtype}
    if method == "linear":
        per_model.pop("normalize", None)
    else:
        config |= {"base_model": str(models["base"]), "parameters": parameters}
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(config))
    run = "import sys; from mergekit.scripts.run_yaml import main; sys.exit(main())"
    return [python, "-c", run, str(path), str(output), "--no-copy-tokenizer"]


def check_mergekit(python):
    """End with a message that says how to install it unless a Python has mergekit."""
    found = subprocess.run([python, "-c", "import mergekit"], capture_output=True)
    if found.returncode:
        raise SystemExit(
            f"{python} cannot import mergekit. Its pins differ from ours, so give it an "
            f"environment of its own: python3 -m venv mk && mk/bin/pip install mergekit==0.1.5, "
            f"and name mk/bin/python here."
        )


def timed(command, output, keep=False):
    """Run a process that writes ``output``; return wall and CPU seconds, peak resident GB."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read().decode()[-3000:]}")
    if not keep:
        shutil.rmtree(output)
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


@contextmanager
def busy_core(wanted):
    """Keep one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mergekit", default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", default=None)
    args = parser.parse_args()
    if args.mergekit:
        check_mergekit(args.mergekit)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        models = make(folder)
        output = folder / "merged"
        print("| merge | tsv-merge | mergekit | ratio |\n|-|-:|-:|-:|")
        with busy_core(args.busy):
            for arguments, merge in MERGES.items():
                if args.only not in arguments:
                    continue
                for _ in range(args.repeats):
                    extra = f" threads={args.threads}" if args.threads else ""
                    own = timed(ours(models, arguments + extra, output), output)
                    cells = [f"{own[0]:.1f} s, CPU {own[1]:.1f}, {own[2]:.2f} GB", "", ""]
                    if merge and args.mergekit:
                        other = timed(theirs(models, merge, output, args.mergekit), output)
                        cells[1] = f"{other[0]:.1f} s, CPU {other[1]:.1f}, {other[2]:.2f} GB"
                        cells[2] = f"{own[0] / other[0]:.2f}"
                    print(f"| {arguments} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
