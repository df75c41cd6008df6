"""Each attack that docs/SECURITY.md tells of is tried by a test that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "| test |" not in line]


def test_there_are_attacks():
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS)
def test_an_attack_names_its_test(row):
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", row.rsplit("|", 2)[1])
    assert named
    for path, function in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{path} has no {function}"
