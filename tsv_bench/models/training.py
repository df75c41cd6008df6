"""A resumable training loop, for fine-tuning and for pretraining the embedded backbone."""

import logging
import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsv_bench import bars
from tsv_bench.files import replace_atomically
from tsv_bench.models.distributed import ALONE, Group

LOG_EVERY = 25  # steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with linear warm-up, cosine decay and gradient clipping."""

    steps: int
    batch_size: int
    rate: float  # peak learning rate
    warmup_steps: int
    weight_decay: float
    clip: float  # largest norm of the gradient
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    final_rate: float = 0.0  # the cosine's end, as a share of the peak

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step; the first is step 0."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.rate * (self.final_rate + (1 - self.final_rate) * cosine)


def train(
    model: nn.Module,
    loss_at: Callable[[int], Tensor | Iterable[Tensor]],
    recipe: Recipe,
    *,
    label: str,
    resume: Path,
    save_every: float = 30.0,
    decayed: Callable[[str, Tensor], bool] = lambda name, param: True,
    log: Callable[[int, float], None] = lambda step, loss: None,
    group: Group = ALONE,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Train ``model`` in place; continue from the state in ``resume`` if a killed run left one.

    ``loss_at(step)`` returns the loss of the step's batch, or yields parts of it that add up; the
    graph of a part is freed before the next is computed. It must depend on the step and the model
    alone (with generators seeded by the step). Then an interrupted run ends with the same weights
    as an uninterrupted one.

    ``decayed`` tells which parameters have weight decay. ``log`` is called with step and loss
    every LOG_EVERY steps. Each process of ``group`` computes its own parts of a batch; the main
    one saves the state, which all of them read. ``scaler`` is for float16. The state is saved
    every ``save_every`` seconds; the caller deletes it once it has written the result. Raises
    ValueError if the saved state is damaged.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    param_groups = [
        {"params": [p for n, p in named if decayed(n, p)], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in named if not decayed(n, p)], "weight_decay": 0.0},
    ]
    params = [p for _, p in named]
    optimizer = torch.optim.AdamW(
        [g for g in param_groups if g["params"]],
        lr=recipe.rate,
        betas=tuple(recipe.betas),
        eps=recipe.eps,
        fused=True,
    )
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    first = 0
    if state := load_state(resume):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state.get("scaler", {}))
        first = state["step"]
    group.broadcast_state(model)

    model.train()
    saved = time.monotonic()
    bar = bars.bar(
        range(first, recipe.steps),
        desc=label,
        initial=first,
        total=recipe.steps,
        leave=False,
        disable=not group.is_main,
    )
    for step in bar:
        for param_group in optimizer.param_groups:
            param_group["lr"] = recipe.rate_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(loss_at(step), scaler)
        group.all_reduce(p.grad for p in params if p.grad is not None)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(params, recipe.clip)
        scaler.step(optimizer)  # does nothing if float16 overflowed
        scaler.update()
        if step % LOG_EVERY == 0:
            group.all_reduce([loss])
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            log(step, loss.item())
        if group.is_main and time.monotonic() - saved > save_every:
            saving = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            if scaler.is_enabled():
                saving["scaler"] = scaler.state_dict()
            try:
                save_state(resume, {**saving, "step": step + 1})
            except FileNotFoundError:
                pass  # another process, which trains the same, has removed the folder
            except OSError as error:  # a full disk may have room again at the end
                logging.getLogger(__name__).warning(
                    f"{label} goes on without a state to resume from: {error}"
                )
            saved = time.monotonic()
    model.eval()


def add_gradients(losses: Tensor | Iterable[Tensor], scaler: torch.amp.GradScaler) -> Tensor:
    """Add the gradients of a step's loss, or of its parts in turn, and return the whole loss."""
    total: Tensor | None = None
    for loss in [losses] if isinstance(losses, Tensor) else losses:
        scaler.scale(loss).backward()
        total = loss.detach() if total is None else total + loss.detach()
        del loss  # frees its graph before the next one is built
    assert total is not None, "a step without any loss"
    return total


def part_of(rows: Tensor, part: int, num_parts: int) -> Tensor:
    """Return the rows of one of ``num_parts`` nearly equal parts of a batch."""
    first, end = len(rows) * part // num_parts, len(rows) * (part + 1) // num_parts
    return rows[first:end]


def batch_rows(num_rows: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Return the row indices of a step's batch [batch_size].

    Every epoch goes through a new permutation of the rows, without its last incomplete batch.
    """
    batch_size = min(batch_size, num_rows)
    epoch, batch = divmod(step, num_rows // batch_size)
    order = torch.randperm(num_rows, generator=step_generator(seed, epoch))
    return order[batch * batch_size : (batch + 1) * batch_size]


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return a CPU generator for one step of one seed."""
    # torch's CPU generator uses only the low 32 bits of its seed. The odd constant, 2**32 over the
    # golden ratio, spreads the seeds over them, so that two seeds do not share a step.
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**32)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state, whole or not at all."""
    replace_atomically(path, lambda temporary: torch.save(dict(state), temporary))


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the training state at ``path``, or None. Raises ValueError if it is damaged."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:  # or another process, which trains the same, has just ended
        return None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # whichever part is damaged
        raise ValueError(
            f"{path} is no whole training state to resume from. Delete it to begin again."
        ) from error
