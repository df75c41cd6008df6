"""Folders of parquet files, images or webdataset tars, read row by row with `datasets`.

The streaming reader of `datasets` yields the rows of local files, with images undecoded. So nothing
is copied into its cache.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

URL = "__url__"  # the column of a webdataset that names a row's tar


@dataclass(frozen=True)
class Folder:
    """Some splits of a data set in a folder."""

    path: Path
    files: dict[str, list[str]]  # by split, in the order of its rows
    features: dict[str, Any]  # the type of each column, as `datasets.Features` has it
    build: Callable  # makes a `datasets` builder of some columns

    def rows(self, split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows in order, as {column: value}.

        An image is {"bytes": ..., "path": ...}, one of them None. Raises OSError if a file is
        damaged.
        """
        import datasets

        columns = [name for name in self.features if name in {*columns, URL}]
        images = [c for c in columns if isinstance(self.features[c], datasets.Image)]
        try:
            rows = self.build(columns).as_streaming_dataset(split).select_columns(columns)
            for name in images:
                rows = rows.cast_column(name, datasets.Image(decode=False))
            yield from rows
        except Exception as error:  # pyarrow, tarfile and `datasets` raise many types
            raise OSError(damage(self.path, self.files[split], error)) from error

    def locate(self, split: str, row: int, value: dict[str, Any]) -> str:
        """Return where a row is, for a message: its file or tar, and its number there."""
        files, image = self.files[split], value["path"]
        if URL in value:
            return f"{value[URL]}, row {row} of the split ({image})"
        for file in files if Path(files[0]).suffix == ".parquet" else []:
            if row < (rows := num_rows(file) or 0):
                return f"{file}, row {row}"
            row -= rows
        return f"{image}, row {row}"


def num_rows(file: str) -> int | None:
    """Return the number of rows that a parquet file's footer says, or None if it is damaged."""
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_metadata(file).num_rows
    except (OSError, pyarrow.ArrowException):
        return None


def open_folder(path: Path, config_name: str | None, splits: Sequence[str]) -> Folder:
    """Open the named splits of a folder, as its README's yaml or else its file names tell them.

    Files of other splits need not be there. Raises ValueError if the folder has no such
    configuration, split or kind of file, OSError if its data cannot be read.
    """
    import datasets
    from datasets.data_files import DataFilesList

    datasets.disable_progress_bars()
    try:
        patterns, features, named = described(path, config_name)
    except datasets.exceptions.DataFilesNotFoundError:
        patterns, features, named = {}, None, None
    except ValueError:
        raise
    except Exception as error:  # yaml, `datasets` and huggingface_hub raise many types
        raise OSError(
            f"{path / 'README.md'} cannot be read ({type(error).__name__}: {error}). Fetch or copy "
            f"it again, or delete it, if the names of the files tell the splits."
        ) from error
    if missing := [split for split in splits if split not in patterns]:
        there = f"there are {', '.join(map(str, patterns))}" if patterns else "it holds no data"
        raise ValueError(f"{path} has no split {missing[0]!r}; {there}.")
    data_files = {split: list(patterns[split]) for split in splits}
    for split, names in data_files.items():
        try:
            there = DataFilesList.from_patterns(names, base_path=str(path.resolve()))
        except FileNotFoundError:  # a name without a star
            there = []
        if not there:
            raise ValueError(
                f"{path} has no file of the split {split!r}, which is to be {', '.join(names)}. "
                f"Fetch or copy it again."
            )

    def build():
        # `datasets` makes lock files in its cache, even when it prepares no data there.
        with tempfile.TemporaryDirectory() as nowhere:
            return datasets.load_dataset_builder(
                str(path), named, data_files=data_files, features=features, cache_dir=nowhere
            )

    def of_columns(columns: Sequence[str]):
        chosen = copy(builder)
        chosen.config, chosen.info = copy(builder.config), builder.info.copy()
        chosen.config.columns = list(columns)
        return chosen

    files: dict[str, list[str]] = {}
    try:
        builder = build()
        files = {split: list(builder.config.data_files[split]) for split in splits}
        found = next(iter(builder.as_streaming_dataset().values()))
    except Exception as error:  # `datasets` raises its own, pyarrow's and tarfile's
        raise OSError(damage(path, sum(files.values(), []), error)) from error
    # Parquet is read by columns. Other files may be many: they are listed only once.
    parquet = hasattr(builder.config, "columns")
    return Folder(
        path, files, dict(found.features or {}), of_columns if parquet else lambda _: builder
    )


def damage(path: Path, files: Sequence[str], error: Exception) -> str:
    """Return a message for data that cannot be read; it names the damaged file if that is known."""
    bad = [f for f in files if Path(f).suffix == ".parquet" and num_rows(f) is None]
    return (
        f"the data in {path} cannot be read: {bad[0] + ' is damaged, ' if bad else ''}{error}. "
        f"Fetch or copy them again."
    )


def described(path: Path, config_name: str | None) -> tuple[dict[str, list[str]], Any, str | None]:
    """Return the file patterns by split, the features if known, and the configuration's name.

    They come from the folder's README, or from its file names if it has none. A README without
    configurations fits every ``config_name``; the name is then None. Raises ValueError if it
    lists configurations and not this one, or names data elsewhere.
    """
    import datasets
    from datasets.data_files import get_data_patterns, sanitize_patterns
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    readme = path / "README.md"
    if not readme.is_file():
        return get_data_patterns(str(path)), None, None
    card = DatasetCard.load(readme).data
    configs = MetadataConfigs.from_dataset_card_data(card)
    infos = DatasetInfosDict.from_dataset_card_data(card)
    name = config_name or configs.get_default_config_name()
    if configs and name not in configs:
        raise ValueError(
            f"{path} has {'no configuration ' + repr(name) if name else 'several configurations'}; "
            f"there are {', '.join(configs)}."
        )
    # The description of a single configuration may go without its name.
    only = next(iter(infos.values())) if len(infos) == 1 else datasets.DatasetInfo()
    info = infos.get(name, only)
    settings = configs.get(name, {})
    folder = settings.get("data_dir") or ""
    check_within(readme, folder)
    if "data_files" in settings:
        patterns = sanitize_patterns(settings["data_files"])
    else:
        patterns = get_data_patterns(str(path / folder))
    if folder:
        patterns = {s: [f"{folder}/{p}" for p in ps] for s, ps in patterns.items()}
    for pattern in sum(map(list, patterns.values()), []):
        check_within(readme, pattern)
    return patterns, info.features, name if configs else None


def check_within(readme: Path, place: str) -> None:
    """Check that a place that a README names lies in its folder.

    `datasets` would read it from anywhere, the network included. Raises ValueError if it does not.
    """
    if "://" in place or "::" in place or Path(place).is_absolute() or ".." in Path(place).parts:
        raise ValueError(
            f"{readme} names data at {place!r}, outside its folder. Copy them into the folder, and "
            f"name them relative to it."
        )
