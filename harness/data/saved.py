"""Datasets that `datasets` saved to a folder with `save_to_disk`.

A saved `Dataset` is a folder with `state.json` and `.arrow` files. A saved `DatasetDict` is a folder with `dataset_dict.json`
and one such folder for each split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Row
from harness.data.arrow import ArrowTable, decoded, read_table
from harness.data.digests import files_sha256
from harness.errors import UserError, one_line
from harness.storage import inside, read_json

STATE, SPLITS = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class Saved:
    """A dataset that was saved with `Dataset.save_to_disk`."""

    path: Path
    """The folder with `state.json`."""

    def load(self) -> Sequence[Row]:
        """The rows, read from the disk when they are used.

        Raises:
            UserError: The folder is incomplete, or a file in it cannot be read.
        """
        import pyarrow

        tables = [read_table(file) for file in self.files]
        try:
            table = ArrowTable(pyarrow.concat_tables(tables))
        except pyarrow.ArrowException as error:
            raise UserError(f"the files of `{self.path}` have different columns: {one_line(error)}", _AGAIN) from error
        if not len(table):
            raise UserError(f"the saved dataset `{self.path}` has no rows", hint="check what was saved")
        return decoded(table) if "Json" in table.column_types else table

    def digest(self) -> str:
        """SHA-256 of the names and bytes of the `.arrow` files."""
        return files_sha256(self.files)

    @property
    def files(self) -> list[Path]:
        """The `.arrow` files in order; other `.arrow` files of the folder are caches of `datasets`.

        Raises:
            UserError: `state.json` cannot be read, or names a file that does not exist or is outside the folder.
        """
        state = _read_json(self.path / STATE)
        try:
            names = [str(entry["filename"]) for entry in state["_data_files"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"`{self.path / STATE}` does not list the files of the dataset", _AGAIN) from error
        if state.get("_indices_data_files"):
            raise UserError(
                f"`{self.path}` was saved by an old version of `datasets`, with its rows in another order than in its files",
                _AGAIN,
            )
        for name in names:
            if Path(name).name != name or not inside(self.path, name).is_file():
                raise UserError(f"`{self.path / STATE}` names the file `{name}`, which is not in the folder", _AGAIN)
        if not names:
            raise UserError(f"the saved dataset `{self.path}` has no rows", hint="check what was saved")
        return [self.path / name for name in names]

    def __str__(self) -> str:
        return str(self.path)


_AGAIN = "save it again with `dataset.save_to_disk`, or write one file with `dataset.to_parquet`"


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    try:
        return (path / STATE).is_file() or (path / SPLITS).is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False


def saved(path: Path) -> Saved:
    """The dataset that was saved to a folder; of several splits, `train`.

    Raises:
        UserError: The folder has several splits and none of them is `train`.
    """
    if not (path / SPLITS).is_file():
        return Saved(path)
    listed = _read_json(path / SPLITS).get("splits")
    splits = (
        [name for name in map(str, listed) if (inside(path, name) / STATE).is_file()]
        if isinstance(listed, list)
        else []
    )
    if "train" in splits or len(splits) == 1:
        return Saved(path / ("train" if "train" in splits else splits[0]))
    raise UserError(
        f"the saved dataset `{path}` has " + (f"the splits {', '.join(splits)}" if splits else "no split"),
        hint=f"name the folder of one split: {', '.join(f'`{path / name}`' for name in splits)}" if splits else _AGAIN,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"could not read `{path}`: {one_line(error)}", _AGAIN) from error
    if not isinstance(content, dict):
        raise UserError(f"`{path}` is not a JSON object", _AGAIN)
    return content
