"""What wandb has written offline, read back; folders of its own, and no time on what none reads."""

import json
import struct
import time

from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.lib.service import service_port_file

from tsv_bench.report import tracking


def own_folders(monkeypatch, folder):
    """wandb keeps no file in, and takes no login from, the home of whoever runs the tests.

    It begins in a fifth of the time: it lists no installed packages, and looks more often whether
    its process has begun.
    """
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(folder / name.lower()))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("WANDB_X_SAVE_REQUIREMENTS", "false")
    monkeypatch.setattr(service_port_file, "_SLEEP", lambda seconds: time.sleep(min(seconds, 0.01)))
    monkeypatch.setattr(tracking, "START_SECONDS", 300)  # a busy machine starts it in more than 30
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def records(path):
    """The protobuf records of a .wandb file: 7 bytes, then LevelDB's log format, 32 KiB blocks."""
    content, position, parts = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:  # no room for a header: the block is padded
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7
        parts += content[position : position + length]
        position += length
        if kind in (1, 4):  # a full record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def of_type(found, name):
    return [getattr(r, name) for r in found if r.WhichOneof("record_type") == name]


def values(items):
    """{"a/b": value}; keys come as one string or as a path of them."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
        if not (item.key or item.nested_key[0]).startswith("_")
    }


def summary(found):
    merged = {}
    for record in of_type(found, "summary"):
        merged |= values(record.update)
    return merged
