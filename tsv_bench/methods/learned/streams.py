"""Tokens of all tasks' images on their way through the blocks of a network."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.bench import Bench

Tokens = Float[Tensor, "images tokens width"]
Weights = Mapping[str, Tensor]

EMBEDDED = 64  # images that are embedded at once
# Entries of the tokens that pass a block at once: with a gradient about thirty times as much is in
# memory, 0.5 GB in float32. Results differ by rounding only.
AT_ONCE = 2**22


class Streams:
    """Makes streams and moves them on, block after block.

    A stream is on the CPU; images of all tasks stand in it one after another.
    """

    def __init__(self, bench: Bench, tasks: Sequence[str]) -> None:
        self._bench, self._tasks = bench, tasks
        stops = torch.tensor([len(bench.images(task)) for task in tasks]).cumsum(0).tolist()
        self.rows = [slice(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True)]

    def added(self, deltas: Weights) -> dict[str, Tensor]:
        """Return weights: the pretrained ones with deltas added, where the bench computes."""
        pretrained = self._bench.pretrained
        return {name: pretrained[name] + deltas[name].to(pretrained[name]) for name in deltas}

    @torch.no_grad()
    def embedded(self, deltas_of: Callable[[int], Weights]) -> Tokens:
        """Return what the first block gets; ``deltas_of`` returns those of a task, by its number.

        One task's are in memory at a time.
        """
        found = None
        for number, (task, rows) in enumerate(zip(self._tasks, self.rows, strict=True)):
            weights, images = self.added(deltas_of(number)), self._bench.images(task)
            for at in range(0, len(images), EMBEDDED):
                tokens = self._bench.embed(weights, images[at : at + EMBEDDED])
                if found is None:
                    found = tokens.new_empty(self.rows[-1].stop, *tokens.shape[1:], device="cpu")
                found[rows][at : at + EMBEDDED] = tokens
        return found

    @torch.no_grad()
    def advance(self, number: int, deltas: Weights, tokens: Tokens) -> None:
        """Replace tokens by what block ``number`` makes of them."""
        weights = self.added(deltas)
        for [part] in self.parts(tokens):
            part.copy_(self._bench.run_block(weights, number, part.to(self._bench.device)))

    @torch.no_grad()
    def loss(self, number: int, deltas: Weights, tokens: Tokens, wanted: Tokens) -> float:
        """Return the sum of squared differences of what the block makes of tokens from wanted."""
        weights, total = self.added(deltas), 0.0
        for x, y in self.parts(tokens, wanted):
            found = self._bench.run_block(weights, number, x.to(self._bench.device))
            total += float((found - y.to(found.device)).square().sum(dtype=torch.float64))
        return total

    def gradient(
        self, number: int, deltas: Weights, tokens: Tokens, wanted: Tokens
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return that loss, and its gradient by the block's weights."""
        weights = {name: w.requires_grad_(True) for name, w in self.added(deltas).items()}
        leaves = list(weights.values())
        total, sums = 0, [torch.zeros_like(w, requires_grad=False) for w in leaves]
        for x, y in self.parts(tokens, wanted):
            x, y = x.to(self._bench.device), y.to(self._bench.device)
            with torch.enable_grad():
                loss = (self._bench.run_block(weights, number, x) - y).square().sum()
                found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for summed, of_part in zip(sums, found, strict=True):
                summed += of_part
            total = total + loss.detach()
        return total, dict(zip(weights, sums, strict=True))

    @staticmethod
    def parts(*streams: Tokens) -> Iterator[tuple[Tokens, ...]]:
        """Yield views of a few images' tokens at a time, of all streams."""
        size = max(1, AT_ONCE // max(1, streams[0][0].numel()))
        yield from zip(*(stream.split(size) for stream in streams), strict=True)
