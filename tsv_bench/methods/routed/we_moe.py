"""WEMoE, weight-ensembling mixture of experts: https://arxiv.org/abs/2402.00433."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.entrywise.arithmetic import task_arithmetic
from tsv_bench.methods.knobs import (
    check_not_negative,
    check_positive,
    check_whole,
)
from tsv_bench.methods.learned.ada_merging import entropy
from tsv_bench.methods.learned.learning import Batches, generator, minimize
from tsv_bench.methods.routed.experts import MLP, Experts, Gates, bias_of, is_linear
from tsv_bench.methods.routed.routed_vector import Routing
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    as_lazy,
    lazy_vectors,
    stacked,
)
from tsv_bench.task_vectors.merge import map_layers, times
from tsv_bench.task_vectors.task_vector import apply

__all__ = ["we_moe"]

FIRST, SECOND = MLP  # a block's gates are found at the first, and count at both
ENTRY_BYTES = 4


def we_moe(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    scale: float | int = 0.3,
    start: float | int = 0.3,
    learning_rate: float | int = 1e-4,
    steps: int = 1000,
    batch_size: int = 16,
) -> ServedVectors:
    """Serve each image MLPs with the task vectors weighted by gates, and Task Arithmetic elsewhere.

    Each block has a router: from an MLP's inputs, by two linear layers, to a weight for each task,
    in the mean over the image's tokens. They start at ``start`` and learn by Adam to lower the
    entropy of what the tasks' heads predict. ``scale`` is that of Task Arithmetic outside of the
    MLPs. A step has ``batch_size`` images of each task; while it learns, the images of a task
    share the mean of their gates. Raises ValueError for knobs out of range, or without a bench when
    the router is wanted.
    """
    check_not_negative("scale", scale, "the scale of the sum of task vectors outside of MLPs")
    check_not_negative("start", start, "how much each task counts before anything is learned")
    check_positive("learning_rate", learning_rate, "how far Adam moves a weight in one step")
    check_whole("steps", steps, "the number of Adam's steps", 0)
    check_whole("batch_size", batch_size, "the number of images of a task in a step", 1)
    if not task_vectors:
        return {}
    tasks = list(task_vectors)
    vectors = dict(zip(tasks, lazy_vectors(task_vectors.values()), strict=True))
    summed = times(next(iter(task_arithmetic(task_vectors).values())), float(scale))
    shared = map_layers(summed, lambda n, delta: delta * (not is_expert(n)))

    def own(shared: Mapping, task: str) -> LazyVector:
        pair = [as_lazy(shared), vectors[task]]

        def parts(name: str) -> list[Part]:
            which = pair[is_expert(name)]
            entries = which.shape(name).numel()
            return [Part(name, 0, entries, lambda: which[name], at_least_float32)]

        return LazyVector(pair, parts)

    def learn(shared: Mapping) -> BlockRouter:
        check_bench("we_moe", bench)
        check_fits(bench, task_vectors)
        router = start_of(bench, vectors, float(start))
        if steps:
            how = {"steps": steps, "learning_rate": learning_rate}
            learn_gates(bench, router, shared, batch_size, **how)
        return router

    def expert_bytes() -> int:
        return ENTRY_BYTES * sum(
            vector.shape(name).numel()
            for vector in vectors.values()
            for name in vector
            if is_expert(name)
        )

    return Routing(shared, own, learn, expert_bytes).vectors(tasks)


def is_expert(name: str) -> bool:
    """Return whether a layer belongs to a block's MLP, weights and biases."""
    return name.endswith((*MLP, *map(bias_of, MLP)))


class BlockRouter:
    """A router in each block; `gates` are found from the inputs of its MLP."""

    reads = None

    def __init__(
        self, tasks: Sequence[str], experts: Experts, tensors: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """``tensors``: name of an MLP's first weight -> weight1, bias1, weight2 and bias2."""
        self.tasks, self.experts, self.of_layer = tasks, experts, tensors

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {f"{n}.{k}": t for n, of_layer in self.of_layer.items() for k, t in of_layer.items()}

    def gates(self, features: None = None, average: bool = False) -> Gates:
        """Return gates of each image; with ``average`` all images have their mean."""
        found: dict[str, Tensor] = {}

        def run(name: str, x: Float[Tensor, "images tokens n"]) -> Float[Tensor, "images tasks"]:
            if name.endswith(FIRST):
                layer = self.of_layer[name]
                hidden = F.linear(x, layer["weight1"], layer["bias1"]).relu()
                gates = F.linear(hidden, layer["weight2"], layer["bias2"]).mean(dim=1)
                found["gates"] = gates.mean(dim=0, keepdim=True) if average else gates
            return found["gates"]

        return run


def start_of(bench: Bench, vectors: Mapping[str, LazyMapping], start: float) -> BlockRouter:
    """Return routers that give every task ``start``, nearly: their weights are drawn, std 0.01."""
    first = next(iter(vectors.values()))
    deltas, biases, tensors = {}, {}, {}
    drawn = generator(bench, "we_moe", "start")
    for name in (n for n in first if is_linear(n, MLP)):
        deltas[name] = stacked_layers(vectors, name).to(bench.device)
        if bias_of(name) in first:
            biases[name] = stacked_layers(vectors, bias_of(name)).to(bench.device)
        if not name.endswith(FIRST):
            continue
        width = deltas[name].shape[2]
        shapes = {"weight1": (width, width), "weight2": (len(vectors), width)}
        found = {n: 0.01 * torch.randn(shape, generator=drawn) for n, shape in shapes.items()}
        found |= {"bias1": torch.zeros(width), "bias2": torch.full((len(vectors),), start)}
        tensors[name] = {n: tensor.to(deltas[name]) for n, tensor in found.items()}
    return BlockRouter(list(vectors), Experts(deltas=deltas, biases=biases), tensors)


def stacked_layers(vectors: Mapping[str, LazyMapping], name: str) -> Tensor:
    """Return one layer of all tasks [tasks, ...], in float32 at least."""
    return stacked((vector[name] for vector in vectors.values()), len(vectors))


def learn_gates(
    bench: Bench,
    router: BlockRouter,
    shared: Mapping[str, Tensor],
    batch_size: int,
    *,
    steps: int,
    learning_rate: float | int,
) -> None:
    """Lower the mean entropy of the tasks' predictions, in place."""
    weights = apply(bench.pretrained, shared, 1.0)
    parameters = [t.requires_grad_(True) for t in router.tensors.values()]
    batches = {task: Batches(bench, task, batch_size) for task in router.tasks}

    @torch.enable_grad()
    def gradient() -> Tensor:
        total = 0.0
        for task in router.tasks:  # a task at a time, so that one graph is in memory
            images = bench.images(task)
            rows = batches[task].rows().to(images.device)
            linear = router.experts.linear(router.gates(average=True))
            features = bench.features(weights, images[rows], linear)
            loss = entropy(bench.logits(task, features)) / len(router.tasks)
            loss.backward()
            total = total + loss.detach()
        return total

    minimize(parameters, gradient, steps=steps, learning_rate=learning_rate, what="we_moe: steps")
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
