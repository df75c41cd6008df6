"""What the fork server imports once for all processes: it names modules, and cannot call."""

from tsv_bench.cli.work import bench, finetune, merge  # noqa: F401
from tsv_bench.models import quick_import

quick_import.imported()
