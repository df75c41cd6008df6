"""Evaluate a method whose router sends each image to an expert, or mixes experts for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.runs import RouterScores
from tsv_bench.data import Split
from tsv_bench.methods.forms import Routed, Shared
from tsv_bench.methods.routed.experts import Experts, Noted
from tsv_bench.methods.routed.routed_vector import one_hot
from tsv_bench.scores import score


@dataclass(frozen=True)
class Routes:
    """For each task, of each of its images, bool [images]."""

    correct: dict[str, np.ndarray]  # whether it is classified correctly, with the task's own head
    found: dict[str, np.ndarray]  # whether its task's expert counts most for it
    oracle: dict[str, np.ndarray]  # whether it is classified correctly by its task's expert alone


def router_scores(routes: Routes) -> RouterScores:
    """Return the scores of a router. An image of another task than found has no right class."""
    head_found = {task: hits & routes.found[task] for task, hits in routes.correct.items()}
    kinds = {"found": routes.found, "oracle": routes.oracle, "head_found": head_found}
    return RouterScores(
        **{name: {t: score(hits) for t, hits in kind.items()} for name, kind in kinds.items()}
    )


def route_images(
    evaluator: Evaluator,
    served: Routed,
    splits: Mapping[str, Split],
    done: Callable[[], object] = lambda: None,
) -> Routes:
    """Evaluate pretrained + the vectors of experts, as the router chooses; alpha is 1.

    ``done`` is called as often as there are tasks.
    """
    router, features = served.router, dict.fromkeys(splits)
    if router.reads:
        evaluator.load(served.routing.shared if router.reads == "shared" else {})
        features = {t: evaluator.features(split.images) for t, split in splits.items()}
    if router.experts is None:
        chosen = {task: router.gates(found).argmax(dim=1) for task, found in features.items()}
        return _by_expert(evaluator, served, splits, chosen, done)
    return _by_layers(evaluator, served, router.experts, splits, features, done)


def _by_expert(
    evaluator: Evaluator,
    served: Routed,
    splits: Mapping[str, Split],
    chosen: Mapping[str, Tensor],
    done: Callable[[], object],
) -> Routes:
    """Group the images by expert, so that each expert is computed and loaded once."""
    tasks = served.router.tasks
    to = {task: np.array(tasks)[of_task.cpu().numpy()] for task, of_task in chosen.items()}
    correct = {task: np.zeros(len(split), bool) for task, split in splits.items()}
    oracle: dict[str, np.ndarray] = {}
    for expert in tasks:
        rows = {
            task: np.arange(len(split)) if task == expert else np.flatnonzero(to[task] == expert)
            for task, split in splits.items()
        }
        sent = {
            task: Split(splits[task].images[of_task], splits[task].labels[of_task])
            for task, of_task in rows.items()
            if len(of_task)
        }
        if sent:
            vectors = dict.fromkeys(sent, served.vectors[expert])
            one = Shared(vectors, {t: served.task_vectors[t] for t in sent}, served.name)
            for task, hits in evaluator.correct(one, 1.0, sent).items():
                if task == expert:
                    oracle[task] = hits
                    correct[task] |= hits & (to[task] == expert)
                else:
                    correct[task][rows[task]] = hits
            served.seconds += one.seconds
        done()
    return Routes(correct, {task: to[task] == task for task in splits}, oracle)


def _by_layers(
    evaluator: Evaluator,
    served: Routed,
    experts: Experts,
    splits: Mapping[str, Split],
    features: Mapping[str, Tensor | None],
    done: Callable[[], object],
) -> Routes:
    """Let each image's experts count in every layer, with the gates that the router gives it."""
    evaluator.load(served.routing.shared)
    router, routes = served.router, Routes({}, {}, {})
    for task, split in splits.items():
        own = router.tasks.index(task)

        def run(images: Tensor, rows: slice, task: str = task, own: int = own) -> Tensor:
            found = features[task]
            gates = router.gates(None if found is None else found[rows])
            noted = Noted((lambda _, x: gates) if isinstance(gates, Tensor) else gates)
            routed = evaluator.forward(images, experts.linear(noted))
            alone = one_hot(
                torch.full((len(images),), own, device=images.device), len(router.tasks)
            )
            oracle = evaluator.forward(images, experts.linear(lambda _, x: alone))
            head = evaluator.head(task)
            classes = [(F.normalize(f, dim=-1) @ head.T).argmax(dim=1) for f in (routed, oracle)]
            return torch.stack([*classes, noted.chosen()], dim=1)

        classes, oracle, chosen = evaluator.batches(split.images, run).cpu().unbind(dim=1)
        labels = split.labels.cpu()
        routes.correct[task] = (classes == labels).numpy()
        routes.oracle[task] = (oracle == labels).numpy()
        routes.found[task] = (chosen == own).numpy()
        done()
    return routes
