"""TSV-Merge done the way the paper does it: https://arxiv.org/abs/2412.00081, Algorithm 1.

Written from the definitions in the paper, as the yardstick in benchmarks/engine.py. It stays
without tricks on purpose: every checkpoint and task vector in memory, full SVDs of every matrix.

.venv/bin/python benchmarks/papers_procedure.py OUT PRETRAINED TASK0 TASK1 ... [--threads 2]
    [--device cpu] [--skip-zero]
"""

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

ALPHA = 1.0


def merge_layer(
    deltas: Float[Tensor, "tasks m n"] | Sequence[Float[Tensor, "m n"]],
) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices."""
    rank = min(deltas[0].shape) // len(deltas)
    us, ss, vhs = [], [], []
    for delta in deltas:
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        us.append(u[:, :rank])
        ss.append(s[:rank])
        vhs.append(vh[:rank])
    u = polar_factor(torch.cat(us, dim=1))
    vh = polar_factor(torch.cat(vhs, dim=0))
    return u @ torch.diag(torch.cat(ss)) @ vh


def polar_factor(a: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    return u @ vh


def is_matrix(name: str, param: Tensor) -> bool:
    """The paper's choice, by which the unchanged token embedding is decomposed as well."""
    return param.ndim == 2 and "text_projection" not in name


def merge(
    vectors: Sequence[dict[str, Tensor]], skip_zero: bool = False
) -> tuple[dict[str, Tensor], dict]:
    """The merged vector; the number of SVDs, and the seconds of each all-zero matrix."""
    merged, svds, zero_layers = {}, 0, {}
    for name, param in vectors[0].items():
        deltas = [vector[name] for vector in vectors]
        zero = not any(delta.any() for delta in deltas)
        if not is_matrix(name, param) or (zero and skip_zero):
            merged[name] = sum(deltas) / len(deltas)
            continue
        start = clock()
        merged[name] = merge_layer(deltas)
        svds += len(deltas) + 2
        if zero:
            zero_layers[name] = round(clock() - start, 3)
    return merged, {"svds": svds, "seconds_of_zero_layers": zero_layers}


def clock() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("pretrained", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--skip-zero", action="store_true", help="leave out matrices that no task has changed"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    times = [clock()]
    # On the CPU load_file maps the files: most of the reading happens while vectors are built.
    pretrained = load_file(args.pretrained, device=args.device)
    finetuned = [load_file(path, device=args.device) for path in args.tasks]
    times.append(clock())
    vectors = [{name: state[name] - pretrained[name] for name in pretrained} for state in finetuned]
    times.append(clock())
    merged, work = merge(vectors, args.skip_zero)
    times.append(clock())
    save_file({name: pretrained[name] + ALPHA * merged[name] for name in pretrained}, args.out)
    times.append(clock())

    seconds = dict(
        zip(
            ["load", "vectors", "merge", "save", "total"],
            [b - a for a, b in zip(times, times[1:], strict=False)] + [times[-1] - times[0]],
            strict=True,
        )
    )
    record = {
        "seconds": {phase: round(value, 3) for phase, value in seconds.items()},
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux: KiB
        "tasks": len(args.tasks),
        "threads": torch.get_num_threads(),
        "device": args.device,
        "skip_zero": args.skip_zero,
        **work,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
