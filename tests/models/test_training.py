"""The training loop: learning rates, batches, and resuming."""

import math
import weakref

import pytest
import torch
from stand_ins.disk import full
from torch import nn

from tsv_bench.models import training
from tsv_bench.models.training import (
    Recipe,
    batch_rows,
    part_of,
    save_state,
    step_generator,
    train,
)


def recipe(**changes):
    settings = {"steps": 12, "rate": 0.05, "warmup_steps": 3, "weight_decay": 0.1, "clip": 1.0}
    return Recipe(**{"batch_size": 4, **settings, **changes})


def test_warm_up_is_linear_and_the_cosine_ends_at_the_final_rate():
    made = recipe(steps=110, warmup_steps=10, rate=2.0, final_rate=0.1)
    rates = [made.rate_at(step) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(2.0 * 0.55)  # half way between peak and end
    assert rates[110] == pytest.approx(0.2)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    steps = range(10, 110)
    falls = [rates[step] - rates[step + 1] for step in steps]
    assert falls == pytest.approx(
        [0.9 * math.pi / 100 * math.sin(math.pi * (step - 9.5) / 100) for step in steps], rel=1e-3
    )  # the cosine's slope, midway


def test_no_warm_up_begins_at_the_peak():
    assert recipe(warmup_steps=0).rate_at(0) == 0.05
    assert recipe(warmup_steps=12).rate_at(11) == pytest.approx(0.05)


def test_every_epoch_is_a_permutation_without_repeats():
    epochs = [
        torch.cat([batch_rows(22, 5, 4 * epoch + b, seed=3) for b in range(4)])
        for epoch in range(3)
    ]
    for rows in epochs:  # two of the 22 rows are left out, others in every epoch
        assert len(rows.unique()) == len(rows) == 20 and 0 <= rows.min() and rows.max() < 22
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    left_out = [frozenset(range(22)) - set(rows.tolist()) for rows in epochs]
    assert len(set(left_out)) > 1


def test_batches_depend_on_seed_and_step_alone():
    rows = batch_rows(1000, 100, 17, seed=3)
    batch_rows(1000, 100, 2, seed=3)
    assert torch.equal(rows, batch_rows(1000, 100, 17, seed=3))
    assert not torch.equal(rows, batch_rows(1000, 100, 17, seed=4))


def test_fewer_rows_than_a_batch_are_one_batch():
    assert batch_rows(3, 128, 5, seed=0).sort().values.tolist() == [0, 1, 2]


def test_generators_of_other_seeds_and_steps_draw_other_numbers():
    """torch's CPU generator ignores all but 32 bits of its seed."""
    keys = [(seed, step) for seed in (0, 1, 2, 2**31) for step in (0, 1, 2, 7999)]
    drawn = {tuple(torch.rand(4, generator=step_generator(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


class Problem:
    """Return a small regression whose batches depend on the step."""

    def __init__(self):
        self.model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
        self.steps = []
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.inputs = torch.randn(20, 5)
            for param in self.model.parameters():
                nn.init.normal_(param, std=0.3)

    def loss_at(self, step):
        self.steps.append(step)
        inputs = self.inputs[batch_rows(20, 4, step, seed=1)]
        noise = torch.randn(4, 1, generator=step_generator(2, step))
        return (self.model(inputs) - inputs.sum(1, keepdim=True) - 0.1 * noise).square().mean()

    def train(self, path, loss_at=None, made=None, **settings):
        loss_at = loss_at or self.loss_at
        train(self.model, loss_at, made or recipe(), label="test", resume=path, **settings)
        return self.model.state_dict()

    def loss(self):
        return (self.model(self.inputs) - self.inputs.sum(1, keepdim=True)).square().mean().item()


def test_training_lowers_the_loss_and_writes_nothing_when_it_is_quick(tmp_path):
    problem = Problem()
    before = problem.loss()
    problem.train(tmp_path / "state")
    assert problem.loss() < before
    assert problem.steps == list(range(12))
    assert not list(tmp_path.iterdir()) and not problem.model.training


@pytest.mark.parametrize("stop", [1, 6, 11])
def test_interrupted_run_ends_with_the_same_bits(tmp_path, stop):
    whole = Problem().train(tmp_path / "never")

    interrupted = Problem()

    def killed(step):
        if step == stop:
            raise KeyboardInterrupt
        return interrupted.loss_at(step)

    with pytest.raises(KeyboardInterrupt):
        interrupted.train(tmp_path / "state", killed, save_every=0)

    resumed = Problem()
    nn.init.zeros_(resumed.model[0].weight)  # what it begins with does not matter
    found = resumed.train(tmp_path / "state")
    assert resumed.steps == list(range(stop, 12))
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_finished_state_is_not_trained_further(tmp_path):
    done = {k: v.clone() for k, v in Problem().train(tmp_path / "state", save_every=0).items()}
    again = Problem()
    found = again.train(tmp_path / "state")
    assert not again.steps and all(torch.equal(done[name], found[name]) for name in done)


def test_a_full_disk_costs_the_state_and_not_the_training(tmp_path, caplog, monkeypatch):
    def save_to_full_disk(*arguments):
        with full(3000):
            save_state(*arguments)

    monkeypatch.setattr(training, "save_state", save_to_full_disk)
    problem = Problem()
    expected = {k: v.clone() for k, v in Problem().train(tmp_path / "a", save_every=600).items()}
    found = problem.train(tmp_path / "state", save_every=0)
    torch.testing.assert_close(dict(found), expected, rtol=0, atol=0)
    assert "goes on without a state to resume from: [Errno 27] File too large" in caplog.text
    assert not list(tmp_path.iterdir())

    def removed(path, state):  # by another process, which trains the same and has ended
        raise FileNotFoundError(2, "No such file or directory")

    caplog.clear()
    monkeypatch.setattr(training, "save_state", removed)
    torch.testing.assert_close(dict(Problem().train(tmp_path / "b", save_every=0)), expected)
    assert not caplog.records


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_damaged_state_is_named(tmp_path, content):
    path = tmp_path / "state"
    Problem().train(path, save_every=0)
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(ValueError, match=f"{path}.* Delete it"):
        Problem().train(path)


def test_gradient_is_clipped_before_the_step(tmp_path):
    """AdamW's first step does not depend on the gradient's scale, but its moments do."""
    problem = Problem()
    made = recipe(steps=1, clip=1e-3)
    problem.train(tmp_path / "state", lambda s: 1e6 * problem.loss_at(s), made, save_every=0)
    state = torch.load(tmp_path / "state", weights_only=True)["optimizer"]["state"]
    norm = torch.stack([moments["exp_avg"].norm() for moments in state.values()]).norm()
    # exp_avg is (1 - 0.9) of the only gradient; float32 rounds at 1e-7.
    assert norm.item() == pytest.approx(0.1 * 1e-3, rel=1e-4)


def test_only_the_named_parameters_decay(tmp_path):
    problem = Problem()
    before = {name: param.detach().clone() for name, param in problem.model.named_parameters()}
    made = recipe(steps=1, warmup_steps=0, rate=0.5, weight_decay=0.2)

    def without_gradient(step):
        return sum(0 * param.sum() for param in problem.model.parameters())

    matrices = {"decayed": lambda name, param: param.ndim >= 2}
    problem.train(tmp_path / "state", without_gradient, made, **matrices)
    for name, param in problem.model.named_parameters():
        share = 1 - 0.5 * 0.2 if param.ndim >= 2 else 1.0
        torch.testing.assert_close(param.detach(), share * before[name])


def test_frozen_parameters_stay(tmp_path):
    problem = Problem()
    problem.model[0].requires_grad_(False)
    before = problem.model[0].weight.clone()
    problem.train(tmp_path / "state")
    assert torch.equal(problem.model[0].weight, before)


def test_progress_is_logged_with_its_step(tmp_path):
    seen = []
    Problem().train(tmp_path / "s", None, recipe(steps=51), log=lambda *point: seen.append(point))
    assert [step for step, _ in seen] == [0, 25, 50]
    assert all(math.isfinite(loss) for _, loss in seen)


@pytest.mark.parametrize("num_parts", [2, 3])
def test_parts_of_a_batch_give_the_weights_of_the_whole_batch(tmp_path, num_parts):
    """In float64 rounding changes 12 steps by 1e-15, and a wrong share changes them by 1e-2."""

    def trained(losses):
        problem = Problem()
        problem.model.double()
        problem.inputs = problem.inputs.double()
        return problem.train(tmp_path / "never", lambda step: losses(problem, step))

    def loss(problem, rows):
        inputs = problem.inputs[rows]
        return (problem.model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    def parts(problem, step):
        rows = batch_rows(20, 4, step, seed=1)
        for part in range(num_parts):
            own = part_of(rows, part, num_parts)
            yield loss(problem, own) * (len(own) / len(rows))

    whole = trained(lambda problem, step: loss(problem, batch_rows(20, 4, step, seed=1)))
    for name, param in trained(parts).items():
        torch.testing.assert_close(param, whole[name], rtol=0, atol=1e-12)


def test_parts_cover_a_batch_once_and_evenly():
    rows = torch.arange(16)
    parts = [part_of(rows, part, 6) for part in range(6)]
    assert torch.equal(torch.cat(parts), rows)
    assert {len(part) for part in parts} == {2, 3}


def test_graph_of_a_part_is_dropped_before_the_next_is_asked_for(tmp_path):
    """Accumulation holds the activations of one part at a time."""
    problem, losses = Problem(), []

    def parts(step):
        for _ in range(3):
            assert not losses or losses[-1]() is None
            loss = [problem.loss_at(step) / 3]
            losses.append(weakref.ref(loss[0]))
            yield loss.pop()

    problem.train(tmp_path / "never", parts)
    assert len(losses) == 36


def scaler():
    """Start with a scale so high that the first steps overflow."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**127)


def test_step_that_overflows_is_left_out_and_the_scale_lowered(tmp_path):
    problem, weights = Problem(), []

    def loss_at(step):
        weights.append(problem.model[0].weight.detach().clone())
        return problem.loss_at(step)

    used = scaler()
    found = problem.train(tmp_path / "never", loss_at, scaler=used)
    moved = [not torch.equal(a, b) for a, b in zip(weights, weights[1:], strict=False)]
    left_out = moved.index(True)
    assert 0 < left_out < 6 and all(moved[left_out:])
    assert used.get_scale() == 2.0 ** (127 - left_out)
    assert all(param.isfinite().all() for param in found.values())


@pytest.mark.parametrize("stop", [1, 2, 7])
def test_scale_of_an_interrupted_run_is_taken_up(tmp_path, stop):
    whole = Problem().train(tmp_path / "never", scaler=scaler())
    interrupted = Problem()

    def killed(step):
        if step == stop:
            raise KeyboardInterrupt
        return interrupted.loss_at(step)

    with pytest.raises(KeyboardInterrupt):
        interrupted.train(tmp_path / "state", killed, save_every=0, scaler=scaler())
    found = Problem().train(tmp_path / "state", scaler=scaler())
    assert all(torch.equal(whole[name], found[name]) for name in whole)
