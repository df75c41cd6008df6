"""Top-1 accuracy of served vectors, image by image."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench import task_vectors
from tsv_bench.data import Split
from tsv_bench.models import Backbone, normalize
from tsv_bench.scores import Score

BATCH_SIZE = 125  # images; small enough for the activations to stay in a core's cache


@torch.inference_mode()
def correct_images(visual: nn.Module, head: Tensor, split: Split, device: str) -> np.ndarray:
    """For each image of a split, whether its highest logit is its label. bool [images]."""
    if len(split) == 0:
        raise ValueError("no images to evaluate: the split is empty.")
    correct = []
    for images, labels in zip(
        split.images.split(BATCH_SIZE), split.labels.split(BATCH_SIZE), strict=True
    ):
        features = F.normalize(visual(normalize(images.to(device))), dim=-1)
        correct.append((features @ head.T).argmax(dim=-1) == labels.to(device))
    return torch.cat(correct).cpu().numpy()


class Evaluator:
    """Serves vectors with one working copy of a backbone's image tower."""

    def __init__(self, backbone: Backbone, heads: Mapping[str, Tensor], device: str) -> None:
        self._pretrained = backbone.pretrained
        self._visual = copy.deepcopy(backbone.visual).to(device).eval()
        self._heads = {task: head.to(device) for task, head in heads.items()}
        self._device = device

    def correct(
        self,
        served: Mapping[str, Mapping[str, Tensor]],
        alpha: float,
        splits: Mapping[str, Split],
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """Per task, which images of its split are right with pretrained + alpha * served[task].

        ``done`` is called after every task.
        """
        correct, loaded = {}, None
        for task, split in splits.items():
            vector = served[task]
            if vector is not loaded:  # one vector served to all is loaded once
                self._visual.load_state_dict(task_vectors.apply(self._pretrained, vector, alpha))
                loaded = vector
            correct[task] = correct_images(self._visual, self._heads[task], split, self._device)
            done()
        return correct


def score(correct: np.ndarray) -> Score:
    """Counts and accuracy, in [0, 1]."""
    hits = int(correct.sum())
    return Score(accuracy=hits / len(correct), correct=hits, total=len(correct))


def normalized_accuracy(accuracy: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Mean over tasks of accuracy over that of the task's own fine-tuned model.

    Not the ratio of the means. ValueError when an individual model is never right.
    """
    for task in accuracy:
        if individual[task] == 0:
            raise ValueError(
                f"the fine-tuned model of {task} gets no image right, so accuracies cannot be "
                f"normalized by it. Is its checkpoint of this task and backbone?"
            )
    return sum(accuracy[task] / individual[task] for task in accuracy) / len(accuracy)
