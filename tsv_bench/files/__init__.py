"""Files on disk: hashed, stamped, given room, written whole or not at all, and by one process."""

from tsv_bench.files.atomic import paths_below, replace_atomically, replace_text
from tsv_bench.files.content import Stamp, read_small, remembered_sha256, sha256, stamp
from tsv_bench.files.lease import check_leases, leased
from tsv_bench.files.room import check_place, check_room

__all__ = [
    "Stamp",
    "check_leases",
    "check_place",
    "check_room",
    "paths_below",
    "leased",
    "read_small",
    "remembered_sha256",
    "replace_atomically",
    "replace_text",
    "sha256",
    "stamp",
]
