"""Files from the Hugging Face hub: what a run needs, what is here, and fetching the rest.

Loaders call `require`, which never downloads; `fetch` is for tsv-fetch.
"""

from tsv_bench.hub.answers import NoNetwork
from tsv_bench.hub.cache import cache_folder
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
