"""What the fork server imports once for all processes: it names modules, and cannot call."""

from tsv_bench.cli.work import bench, finetune, merge  # noqa: F401
from tsv_bench.models import quick_import

quick_import.imported()
import torch._dynamo  # noqa: E402, F401  # after it; a first optimizer imports it for two seconds
