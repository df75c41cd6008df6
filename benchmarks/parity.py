"""How far a method is from tensors that its authors' code made, by kind of tensor. On request:

.venv/bin/python benchmarks/parity.py esm FILE

The file has the keys of tests/golden/esm (README there), for any number of tasks, widths and
tokens. Prints the largest ||ours - theirs|| / ||theirs|| of each kind of tensor, a name without the
number of its block; exits with 1 if one is above 1e-4. Deltas and statistics are in float64.
"""

import argparse
import re
import sys
from pathlib import Path

from safetensors import safe_open

from tsv_bench import methods
from tsv_bench.task_vectors.statistics import Gathered, Statistics

TOLERANCE = 1e-4
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Golden:
    """A file of tensors, of which one is read at a time."""

    def __init__(self, path):
        self._file = safe_open(path, framework="pt")
        self.roles = {}
        for key in self._file.keys():  # noqa: SIM118, it is no dict
            role, _, name = key.partition(":")
            self.roles.setdefault(role, []).append(name)
        self.tasks = sorted(role.partition("_")[2] for role in self.roles if "finetuned_" in role)
        if not self.tasks or not {"pretrained", "merged"} <= set(self.roles):
            raise SystemExit(f"{path} has no keys as pretrained:K, finetuned_T:K and merged:K.")

    def read(self, role, name):
        return self._file.get_tensor(f"{role}:{name}").double()

    def vector(self, task):
        base = "pretrained"
        return {n: self.read(f"finetuned_{task}", n) - self.read(base, n) for n in self.roles[base]}

    def statistics(self, task):
        grams, gathered = {}, {}
        for name in self.roles.get(f"input_{task}", ()):
            x = self.read(f"input_{task}", name)
            grams[name], gathered[name] = x.mT @ x, Gathered(len(x))
        return Statistics(grams, gathered)


def differences(method, path):
    """Kind of tensor -> the largest relative difference; absolute where theirs is zero."""
    golden = Golden(path)
    vectors = {task: golden.vector(task) for task in golden.tasks}
    inputs = {task: golden.statistics(task) for task in golden.tasks}
    served = getattr(methods, method)(vectors, inputs=inputs)[golden.tasks[0]]
    largest = {}
    for name in golden.roles["merged"]:
        theirs, kind = golden.read("merged", name), NUMBER.sub("*", name)
        apart = float((served[name] - theirs).norm() / (theirs.norm() or 1))
        largest[kind] = max(apart, largest.get(kind, 0.0))
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("method")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    found = differences(args.method, args.file)
    for kind, apart in found.items():
        print(f"{apart:.1e}  {kind}{'  <- above' if apart > TOLERANCE else ''}")
    sys.exit(any(apart > TOLERANCE for apart in found.values()))


if __name__ == "__main__":
    main()
