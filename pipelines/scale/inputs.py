"""What `fieldlens score` is asked about: pictures of a folder, a table or a store, by name.

Names alone are held, never pictures. A picture is opened where it is scored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, overload

from pipelines.data.tree import IMAGE_SUFFIXES, files_of, passed_over, suffix_of
from pipelines.errors import ConfigError, CorruptImageError, SourceError
from pipelines.sources.stores import is_store, open_store

#: The column of a table that names pictures.
PATH_COLUMN = "path"
_PARQUET_SUFFIXES = (".parquet", ".pq")
#: Rows of a Parquet file that are held at a time.
_ROWS = 10_000
#: No photograph is larger; an object of a store is read whole.
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Input:
    """A picture to score.

    Attributes:
        name: as the source spells it; the answer stands beside it.
        location: a path of this machine, or an address in a store.
    """

    name: str
    location: str


class Inputs(Sequence[Input]):
    """Pictures in the order of a source, as their names alone: of a million, every byte counts.

    Attributes:
        base: where names that are no addresses begin.
    """

    def __init__(self, names: Sequence[str], base: str) -> None:
        self._names, self.base = names, base

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> Input: ...

    @overload
    def __getitem__(self, at: slice) -> Inputs: ...

    def __getitem__(self, at: int | slice) -> Input | Inputs:
        if isinstance(at, slice):
            return Inputs(self._names[at], self.base)
        name = self._names[at]
        return Input(name, name if is_store(name) else str(Path(self.base, name)))


def inputs_of(source: str, images: Path | None = None, *, anonymous: bool = False) -> Inputs:
    """The pictures that a source names, in its order; of a folder or a store by name.

    Args:
        source: a folder, a CSV or Parquet file with a column ``path`` (a manifest too), or an
            address that fsspec knows, e.g. ``s3://bucket/folder``.
        images: where relative paths of a table begin; None for the table's own folder.
        anonymous: ask a store as nobody.

    Raises:
        ConfigError: if the source is nothing of these, or names no picture.
        SourceError: if a store cannot be listed.
    """
    path = Path(source)
    if is_store(source):
        base, names = Path(), list(_of_store(source, anonymous=anonymous))
    elif path.is_dir():
        base, names = path, [str(file.path) for file in files_of(path) if file.kind == "image"]
    elif path.is_file():
        base, names = path.parent if images is None else images, list(_names(path))
    else:
        raise ConfigError(
            f"{source}: there is nothing of that name. Expected a folder, a CSV or Parquet file "
            f"with a column {PATH_COLUMN!r}, or an address such as s3://bucket/folder."
        )
    if not names:
        raise ConfigError(f"{source}: names no picture, so there is nothing to score.")
    return Inputs(names, str(base))


def read_input(each: Input, *, anonymous: bool = False) -> Path | bytes:
    """What a predictor takes: the path, or the bytes of an object in a store.

    Raises:
        CorruptImageError: if there is no name, or none that a file can have, or if the object
            cannot be read, or is larger than any picture.
    """
    if not each.name or "\0" in each.name:
        raise CorruptImageError(each.name, "a name with a NUL in it" if each.name else "no name")
    if not is_store(each.location):
        return Path(each.location)
    try:
        path = each.location.partition("://")[2]
        fs = _store(_root(each.location), anonymous)
        size = fs.info(path)["size"]
        if size is not None and size > _MAX_BYTES:
            raise CorruptImageError(each.name, f"{size:,} bytes; a picture has at most 256 MiB")
        content: bytes = fs.cat_file(path)
    except CorruptImageError:
        raise
    except Exception as err:
        if isinstance(err.__cause__, ImportError):
            # Of that store no picture can be read.
            raise
        # Each store's library has errors of its own; one object that cannot be read is a row.
        raise CorruptImageError(each.name, f"cannot be read: {type(err).__name__}") from err
    return content


def _root(location: str) -> str:
    """The bucket, host or repository of an address."""
    scheme, _, path = location.partition("://")
    n_parts = 1 if scheme != "hf" else 3 if path.startswith(("datasets/", "spaces/")) else 2
    return f"{scheme}://{'/'.join(path.split('/')[:n_parts])}"


@cache
def _store(bucket: str, anonymous: bool) -> Any:
    return open_store(bucket, "score", anonymous=anonymous).fs


def _of_store(source: str, *, anonymous: bool) -> Iterator[str]:
    store = open_store(source, "score", anonymous=anonymous)
    scheme = source.partition("://")[0]
    try:
        paths = sorted(store.fs.find(store.path))
    except FileNotFoundError:
        paths = []
    except Exception as err:
        raise SourceError(
            f"{store.name}: cannot be listed ({type(err).__name__}). Check the address and the "
            f"credentials of this machine, or ask as nobody (--anonymous)."
        ) from err
    for path in paths:
        below = PurePosixPath(path)
        if suffix_of(below) in IMAGE_SUFFIXES and passed_over(PurePosixPath(below.name)) is None:
            yield f"{scheme}://{path}"


def _names(table: Path) -> Iterator[str]:
    if table.suffix.lower() in _PARQUET_SUFFIXES:
        yield from _names_of_parquet(table)
        return
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            _check_columns(table, rows.fieldnames or [])
            yield from (row[PATH_COLUMN] or "" for row in rows)
    except (UnicodeDecodeError, csv.Error) as err:
        raise ConfigError(
            f"{table}: is no table ({err}). Expected CSV in UTF-8, or a file called *.parquet."
        ) from err


def _names_of_parquet(table: Path) -> Iterator[str]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(table) as file:
            _check_columns(table, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS, columns=[PATH_COLUMN]):
                names = batch.column(0).to_pylist()
                if any(not isinstance(name, str | None) for name in names):
                    raise ConfigError(
                        f"{table}: the column {PATH_COLUMN!r} holds {batch.column(0).type}. "
                        f"Expected text, the paths of pictures."
                    )
                yield from (name or "" for name in names)
    except pyarrow.ArrowInvalid as err:
        raise ConfigError(f"{table}: is no Parquet file ({err}).") from err


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    if PATH_COLUMN not in columns:
        shown = ", ".join(map(str, columns)) or "none"
        raise ConfigError(f"{table}: expected a column {PATH_COLUMN!r} (columns: {shown}).")
