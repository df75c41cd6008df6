"""The sections of benchmarks/gpu.py: each yields the lines of its table, as it measures them."""

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import full_size
import numpy as np
import torch
import torch.nn.functional as F
from gpu_merging import merging
from gpu_timing import Plan, median, synchronize, timed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tsv_bench.benchmark.evaluator import Evaluation
from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.work.machine import chosen_devices
from tsv_bench.data import Split
from tsv_bench.models import normalize
from tsv_bench.models.accuracy import correct_images
from tsv_bench.models.devices import BATCH_SIZES
from tsv_bench.models.finetuning import finetune

ROOT = Path(__file__).resolve().parents[1]
PRECISION = {True: "float32", False: "bfloat16"}  # in small sizes; else


def marked_tests(plan: Plan) -> Iterator[dict]:
    files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark" + ".gpu" in p.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--no-header", "-p", "no:cacheprovider",
         *map(str, sorted(files))],
        cwd=ROOT, capture_output=True, text=True, timeout=max(5, plan.left()),
    )  # fmt: skip
    lines = (done.stdout + done.stderr).splitlines()
    yield {"result": next((x for x in reversed(lines) if x.strip()), "no word")}
    for line in [x for x in lines if re.match(r"(FAILED|ERROR) ", x)][:20]:
        yield {"result": line}


def pieces(plan: Plan) -> Iterator[dict]:
    """What merging is made of, in milliseconds, of one layer of eight tasks of ViT-B/32."""
    tasks, m, n, k = (2, 48, 32, 4) if plan.small else (8, 3072, 768, 96)
    wide = torch.randn(tasks, m, n, device=plan.device)
    gram, thin, whole = wide.mT @ wide, wide[..., :k].double(), wide[0].double()
    host = torch.empty(tasks * m * n, pin_memory=torch.cuda.is_available())
    pageable = torch.empty(tasks * m * n)
    moved = ("these deltas to the device, pageable", "the same, pinned", "back")
    runs = {
        f"{tasks} Gram matrices of {m} x {n}, float32": lambda: wide.mT @ wide,
        "the same, float64": lambda: wide.double().mT @ wide.double(),
        f"{tasks} eigh of {n} x {n}, float32": lambda: torch.linalg.eigh(gram),
        "one, float32": lambda: torch.linalg.eigh(gram[0]),
        "one, float64": lambda: torch.linalg.eigh(gram[0].double()),
        "one, float64, on the CPU and back": lambda: [
            part.to(plan.device) for part in torch.linalg.eigh(gram[0].double().cpu())
        ],
        f"{tasks} QR of {m} x {k}, float64": lambda: torch.linalg.qr(thin),
        f"{tasks} eigh, float32, each on a stream and a thread of its own": lambda: side_by_side(
            torch.linalg.eigh, gram
        ),
        "one polar factor by 20 Newton-Schulz steps, float64": lambda: newton_schulz(whole),
        "one Cholesky factor, float64": lambda: torch.linalg.cholesky_ex(gram[0].double()),
        f"one SVD of {m} x {n}, float32": lambda: torch.linalg.svd(wide[0], full_matrices=False),
        moved[0]: lambda: pageable.to(plan.device),
        moved[1]: lambda: host.to(plan.device, non_blocking=True),
        moved[2]: wide.cpu,
    }
    for what, run in runs.items():
        if plan.left() > 2:
            milliseconds = 1000 * median(plan.device, run, 3)
            gigabytes = 4 * host.numel() / 1e6 / milliseconds if what in moved else None
            yield {"piece": what, "ms": milliseconds, "GB/s": gigabytes}


def side_by_side(function: Callable, matrices: torch.Tensor) -> None:
    def run(matrix: torch.Tensor, stream: torch.cuda.Stream | None) -> None:
        with torch.cuda.stream(stream):  # None changes nothing
            function(matrix)

    streams = [torch.cuda.Stream() if matrices.is_cuda else None for _ in matrices]
    synchronize(matrices.device)
    with ThreadPoolExecutor(len(matrices)) as pool:
        list(pool.map(run, matrices, streams))


def newton_schulz(a: torch.Tensor) -> torch.Tensor:
    """Products alone: how near they come to the polar factor depends on the singular values."""
    x = a / torch.linalg.matrix_norm(a)
    for _ in range(20):
        x = torch.addmm(x, x, x.mT @ x, beta=1.5, alpha=-0.5)
    return x


def images_in_file(path: Path, number: int, size: int, device: str) -> torch.Tensor:
    """Random pictures of soft colours, memory-mapped as the cache of decoded pixels is."""
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (number, 3, size, size))
    for rows in np.array_split(np.arange(number), max(1, number // 250)):
        coarse = torch.rand(len(rows), 3, 7, 7, device=device)
        soft = F.interpolate(coarse, size=(size, size), mode="bilinear").mul_(255).byte()
        pixels[rows[0] : rows[-1] + 1] = soft.cpu().numpy()
    pixels.flush()
    return torch.from_numpy(np.load(path, mmap_mode="c"))


@torch.inference_mode()
def features_of(visual, images, batch, device) -> torch.Tensor:
    parts = [visual(normalize(part.to(device))).float() for part in images.split(batch)]
    return F.normalize(torch.cat(parts), dim=-1)


def evaluation(plan: Plan) -> Iterator[dict]:
    sizes = {"tiny": (20, 60)} if plan.small else {"vit_b32": (500, 5000), "vit_l14": (500, 2000)}
    for name, (batch, number) in sizes.items():
        visual = full_size.clip(name, plan.device).visual.eval().requires_grad_(False)
        with TemporaryDirectory(dir=plan.files) as folder:
            images = images_in_file(
                Path(folder) / "images.npy", number, visual.image_size[0], plan.device
            )
            yield from evaluated(plan, name, visual, images, batch)


def evaluated(plan: Plan, name: str, visual, images, batch: int) -> Iterator[dict]:
    device, number = plan.device, len(images)
    if not plan.small:
        assert batch == BATCH_SIZES["cuda"]
    # As many classes as pictures: which is nearest differs from picture to picture. They are those
    # that float32 chooses, so that what bfloat16 gets right is where the two agree.
    features = features_of(visual, images[:1000], batch, device)
    head = F.normalize(features[:100] - features.mean(dim=0), dim=-1)
    chosen = (features @ head.T).argmax(dim=-1).cpu()
    for precision in ("bfloat16", "float32"):
        count = number if precision == "bfloat16" else min(number, 2 * batch)
        split = Split(images[:count], torch.zeros(count, dtype=torch.int64))
        resident = [normalize(part.to(device)) for part in split.images.split(batch)]
        cast = nullcontext()
        if precision == "bfloat16":
            cast = torch.autocast(torch.device(device).type, torch.bfloat16)

        @torch.inference_mode()
        def bare(resident=resident, cast=cast) -> None:
            with cast:
                for part in resident:
                    visual(part)

        evaluate = partial(
            correct_images, visual, head, split, device, batch_size=batch, precision=precision
        )
        theirs, own = (median(device, run, 3) for run in (bare, evaluate))
        of_some = Split(images[: len(chosen)], chosen)
        agreeing = correct_images(
            visual, head, of_some, device, batch_size=batch, precision=precision
        ).mean()
        yield {
            "backbone": name, "precision": precision, "batch": batch,
            "images/s from the cache": count / own, "images/s, bare loop": count / theirs,
            "share": theirs / own, "aim": "0.7", "top-1 as in float32": float(agreeing),
        }  # fmt: skip
        del resident
        if plan.left() < 5 and not plan.small:
            return


def devices(plan: Plan) -> Iterator[dict]:
    """The tasks of one cell over all GPUs. The largest task is a quarter of all images."""
    names = ["cpu"] * 2 if plan.small else list(chosen_devices("cuda"))
    if len(names) < 2:
        yield {"problem": "was left out: there is one GPU"}
        return
    name, number = ("tiny", 40) if plan.small else ("vit_b32", 20000)
    visual = full_size.clip(name, plan.device).visual.eval().requires_grad_(False).cpu()
    pretrained = {layer: p.clone() for layer, p in visual.state_dict().items()}
    backbone = SimpleNamespace(visual=visual, pretrained=pretrained)
    shares = {f"task{i}": 0.25 if i == 0 else 0.75 / 15 for i in range(16)}
    heads = {task: torch.randn(10, visual.output_dim) for task in shares}
    vector = {layer: torch.zeros_like(p) for layer, p in pretrained.items()}
    served, first, seconds = dict.fromkeys(shares, vector), None, []
    with TemporaryDirectory(dir=plan.files) as folder:
        images = images_in_file(
            Path(folder) / "images.npy", number // 4, visual.image_size[0], plan.device
        )
        splits = {
            task: Split(images[:count], torch.arange(count) % 10)
            for task, share in shares.items()
            if (count := round(share * number))
        }
        for count in (1, len(names)):
            evaluation = Evaluation(tuple(names[:count]), None, PRECISION[plan.small], None)
            run = partial(evaluation.evaluator(backbone, heads).correct, served, 1.0, splits)
            found = run()  # kernels chosen, memory reserved
            first = found if first is None else first
            seconds.append(median(plan.device, run, 3))
            yield {
                "backbone": name, "devices": count, "images/s": number / seconds[-1],
                "times as fast": seconds[0] / seconds[-1], "at most, by the largest task": 4,
                "the same": str(all(np.array_equal(found[t], first[t]) for t in splits)),
            }  # fmt: skip


def finetuning(plan: Plan) -> Iterator[dict]:
    name, steps, number = ("tiny", 3, 20) if plan.small else ("vit_b32", 40, 1000)
    config = OmegaConf.load(CONF / "backbone" / "vit_b32.yaml").finetune
    recipe_of = instantiate(config)
    visual = full_size.clip(name, plan.device).visual
    head = F.normalize(torch.randn(10, visual.output_dim, device=plan.device), dim=-1)
    with TemporaryDirectory(dir=plan.files) as folder:
        size = visual.image_size[0]
        images = images_in_file(Path(folder) / "images.npy", number, size, plan.device)
        split = Split(images, torch.arange(number) % 10)
        for precision in ("float32", "bfloat16"):

            def train(count: int, precision: str = precision) -> None:
                finetune(
                    visual, head, split, recipe_of.recipe_of_steps(count, number),
                    shift=recipe_of.shift, seed=0, label=precision, resume=Path(folder) / "none",
                    save_every=math.inf, device=plan.device, precision=precision,
                )  # fmt: skip

            train(3)  # kernels chosen, memory reserved
            begun, _ = timed(plan.device, partial(train, 3))
            seconds, peak = timed(plan.device, partial(train, 3 + steps))
            yield {
                "backbone": name, "precision": precision, "batch": min(config.batch_size, number),
                "steps/s": steps / max(seconds - begun, 1e-9), "peak, GB": peak,
            }  # fmt: skip


@dataclass(frozen=True)
class Section:
    title: str
    seconds: float
    run: Callable[[Plan], Iterator[dict]]


SECTIONS = {
    "tests": Section("Tests marked gpu", 80, marked_tests),
    "pieces": Section("Pieces of a merge", 25, pieces),
    "merging": Section(
        "Merging 8 x ViT-B/32", 115, partial(merging, backbone="vit_b32", num_tasks=8)
    ),
    "large": Section(
        "Merging 20 x ViT-L/14", 150,
        partial(merging, backbone="vit_l14", num_tasks=20, methods=("tsv_merge",)),
    ),
    "evaluation": Section("Evaluation from cached pixels", 60, evaluation),
    "devices": Section("Evaluation on several devices", 15, devices),
    "finetuning": Section("Fine-tuning", 35, finetuning),
}  # fmt: skip
