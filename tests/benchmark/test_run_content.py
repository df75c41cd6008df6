"""A Run whose json is damaged in any one place is refused with the place's name."""

import json

import pytest
from made_up.damaged_runs import damaged_contents
from made_up.runs import make_run

from tsv_bench.benchmark.runs import find_runs, load_run, save_run


def test_every_damage_of_the_content_is_named(tmp_path):
    """One folder for all: hundreds of files take a second, and each test of its own as long."""
    run, correct = make_run(tasks=("land", "greek"), num_images=8, stored_bytes=8)
    path = save_run(run, correct, tmp_path)
    content = json.loads(path.read_text())
    wrong = []
    damages = list(damaged_contents(content))
    for name, damaged, said in damages:
        path.write_text(json.dumps(damaged))
        try:
            load_run(path)
        except ValueError as error:
            message = str(error)
            if not (str(path) in message and said in message and len(message) < 700):
                wrong.append((name, message))
            if not message.isprintable():
                wrong.append((name, repr(message)))
        else:
            wrong.append((name, "taken for a Run"))
    assert not wrong
    assert len(damages) > 250
    path.write_text(json.dumps(content))
    assert load_run(path) == run


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "=cmd|'/C calc'!A0", "commit": "<script>"},
        {"knobs": {"pattern": "a\nb\x1b[31m", "rank_fraction": "half", "list": [1, [2]]}},
        {"alpha_curve": [], "stored_bytes": None, "seconds": {}},
        {"suite": "signs+shapes (2)", "normalizer": {}, "settings": {}},
        {"checkpoints": {"pretrained": {}, "land": {}}},
    ],
)
def test_what_is_odd_but_whole_is_read(changes, tmp_path):
    run, correct = make_run(tasks=("land", "greek"), num_images=8, **changes)
    path = save_run(run, correct, tmp_path)
    assert find_runs(tmp_path) == [(path, run)]
