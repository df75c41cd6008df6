"""What a method has done so far, kept on disk until its Run is finished."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tsv_bench.files import replace_atomically
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.wording.escaping import check_name

log = logging.getLogger(__name__)
OF = "tsv_bench.unfinished"  # in a file's metadata: what its content was made of


class Unfinished:
    """Named tensors in a folder, whole steps of work that a killed process need not do again.

    It is of one process at a time: `benchmark.cells.make_run` holds a lease on the folder.

    ``made_of``: plain data on which the content depends; what was made of others is not found.
    """

    def __init__(self, folder: Path, made_of: Any) -> None:
        self.folder = Path(folder)
        text = json.dumps(made_of, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Return the file of a name. Raises ValueError for one that may not be a file's."""
        check_name(name, "the name of what is kept")
        return self.folder / f"{name}.safetensors"

    def resume(self, name: str) -> Path:
        """Return where a training of that name keeps the state from which it can be resumed."""
        digest = hashlib.sha256(f"{self._digest} {name}".encode()).hexdigest()
        return self.folder / f"{digest[:16]}.resume"

    def kept(self, name: str) -> StateDict | None:
        """Return what was kept under a name, read on access; None if there is nothing to use."""
        path = self.path(name)
        try:
            found = open_state_dict(path)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            log.warning(f"{error} It is made again.")
            return None
        return found if found.metadata.get(OF) == self._digest else None

    def keep(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
    ) -> None:
        """Write tensors under a name, in place of what is there; warn if the disk takes none.

        ``about`` is added to the file's metadata.
        """
        contiguous = {n: tensor.detach().cpu().contiguous() for n, tensor in tensors.items()}
        write = partial(save_file, contiguous, metadata={OF: self._digest, **(about or {})})
        try:
            replace_atomically(self.path(name), write)
        except FileNotFoundError:
            pass  # another process has finished the same, and removed the folder
        except OSError as error:  # the result may still fit
            log.warning(f"the work goes on, and a break here would lose {name}: {error}")

    def remove(self) -> None:
        """Remove all that is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_before(self, result: Path) -> None:
        """Remove all that is kept if it is older than the result: a kill came before `remove`.

        What is newer is of a process that makes the result again.
        """
        with suppress(OSError):
            inside = [path.stat().st_mtime_ns for path in self.folder.iterdir()]
            if max(inside, default=0) <= result.stat().st_mtime_ns:
                self.remove()
