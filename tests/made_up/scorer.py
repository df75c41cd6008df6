"""A scoring command: python scorer.py MODEL [ITEMS], of the checkpoints of `made_up.merges`.

Item i of a task is right if the model's bias i is near the task's own. Each run adds a line to
asked.txt. The standard library alone: it starts a hundred times.
"""

import json
import struct
import sys
from pathlib import Path

LAYER, COUNT, NEAR = "blocks.0.in_proj_bias", 36, 0.09


def bias(path):
    content = Path(path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    start, stop = json.loads(content[8 : 8 + size])[LAYER]["data_offsets"]
    return struct.unpack(f"<{COUNT}f", content[8 + size + start : 8 + size + stop])


def main(model, items=None):
    wanted = json.loads(Path(items).read_text()) if items else None
    right = {}
    for task in ("a", "b"):
        rows = range(COUNT) if wanted is None else wanted[task]
        values, own = bias(model), bias(f"{task}.safetensors")
        right[task] = [int(abs(values[row] - own[row]) < NEAR) for row in rows]
    with open("asked.txt", "a") as file:
        file.write(f"{Path(model).name} {sum(map(len, right.values()))}\n")
    print("loading the model\n" + json.dumps(right))


if __name__ == "__main__":
    main(*sys.argv[1:])
