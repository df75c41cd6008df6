"""What is needed from the Hugging Face hub, and fetching it.

Loaders call `require` and never download; `fetch` is for tsv-fetch.
"""

from tsv_bench.hub.cache import cache_folder
from tsv_bench.hub.download import NoNetwork
from tsv_bench.hub.needs import (
    Need,
    State,
    amount,
    fetch,
    local_folder,
    look_up,
    reading,
    require,
    state,
)

__all__ = [
    "Need",
    "NoNetwork",
    "State",
    "amount",
    "cache_folder",
    "fetch",
    "local_folder",
    "look_up",
    "reading",
    "require",
    "state",
]
