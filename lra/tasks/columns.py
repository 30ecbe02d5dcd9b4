"""Columns of Arrow tables as lists, whichever of their types pandas, polars or datasets have given them.

The file says a column's type, the task what it must mean, its kind. What a value means is read where it is sure: `text`
is any string or binary type, dictionary-encoded or not; an `id` may be an integer; a `label` may be any number, true or
false, or text, which `lra.tasks.checks` judges; an `image` is an encoded file, alone or as `bytes` beside a `path`, or
the path of one, or nested lists of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError
from lra.tasks.raw_files import unreadable

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "id", "label", "image", "flag"]
Kinds = Mapping[str, Kind]
Columns = dict[str, list[Any]]

EXPECTED: dict[Kind, str] = {
    "text": "text",
    "id": "text or whole numbers",
    "label": "whole numbers, or the classes' names",
    "image": "encoded images (PNG and the like), a struct of their bytes and path, or lists of lists of pixels",
    "flag": "true and false",
}


def read_parquet(path: Path, kinds: Kinds, optional: Kinds | None = None) -> Columns:
    """Read columns of a parquet file; text and encoded images come as bytes, images in files of their own as paths.

    Args:
        path: the file.
        kinds: the columns that must be there, and what each must hold.
        optional: columns that may be there.

    Raises:
        InputError: the file cannot be read or is damaged, lacks a column, has no rows, or a value is missing or of a
            type that the column's kind cannot have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = chosen(kinds, optional, file.schema_arrow.names, str(path))
            table = file.read(list(wanted))
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"{path} is written in a way that pyarrow cannot read ({error}). Write it anew.") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # the second for a damaged name of a column
        raise unreadable(path, error) from error
    return as_lists(table, wanted, str(path), path.parent)


def chosen(kinds: Kinds, optional: Kinds | None, names: list[str], where: str) -> Kinds:
    """Return the columns to read, of those that there are.

    Raises:
        InputError: one is missing, or there twice.
    """
    if absent := [name for name in kinds if name not in names]:
        raise InputError(
            f"{where} has no column {', '.join(absent)}: expected {', '.join(kinds)}, found {', '.join(names)}. Use "
            "the data set's own files, or rename the columns."
        )
    wanted = {**kinds, **{name: kind for name, kind in (optional or {}).items() if name in names}}
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise InputError(f"{where} has {names.count(twice[0])} columns {twice[0]}. Keep one.")
    return wanted


def as_lists(table: pa.Table, kinds: Kinds, where: str, folder: Path | None = None) -> Columns:
    """Turn an Arrow table into lists; texts stay bytes, so that an error of decoding one can name its row.

    Args:
        table: its columns are those of `kinds`.
        kinds: what each must hold.
        where: names the table in messages.
        folder: that images' paths start from; None where there are no files.

    Raises:
        InputError: there are no rows, or a value is missing or of a type that the column's kind cannot have.
    """
    if not len(table):
        raise InputError(f"{where} has no rows. Copy or download it again.")
    lists: Columns = {}
    for name, kind in kinds.items():
        column = _plain(table[name])
        _check_nulls(column, name, where)
        values = _images(table[name], where, folder) if kind == "image" else _CONVERTERS[kind](column)
        if values is None:
            raise InputError(
                f"{where}: the column {name} has the type {table[name].type!s:.200}, expected {EXPECTED[kind]}. Use "
                "the data set's own files, or convert the column."
            )
        lists[name] = values
    return lists


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo what changes no value: extension types, dictionaries, and the many types of strings and bytes."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    elif pa.types.is_dictionary(kind):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type)
    elif _is_text(kind) and not pa.types.is_large_binary(kind):
        return column.cast(pa.large_binary())
    else:
        return column
    return _plain(column)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    is_kind = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
        pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return any(check(kind) for check in is_kind)


def _check_nulls(column: pa.ChunkedArray, name: str, where: str) -> None:
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise InputError(
            f"{where}, row {row}: no {name}, as in {column.null_count} rows. Use the data set's own file, which has "
            "one in every row."
        )


def _texts(column: pa.ChunkedArray) -> list[bytes] | None:
    return column.to_pylist() if _is_text(column.type) else None


def _ids(column: pa.ChunkedArray) -> list[bytes] | None:
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return [b"%d" % value for value in column.to_pylist()]
    return _texts(column)


def _numbers(column: pa.ChunkedArray) -> list[Any] | None:
    import pyarrow as pa

    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return column.to_pylist() if is_number or _is_text(kind) else None


def _flags(column: pa.ChunkedArray) -> list[bool] | None:
    import pyarrow as pa

    return column.to_pylist() if pa.types.is_boolean(column.type) else None


_CONVERTERS: dict[Kind, Callable[[pa.ChunkedArray], list[Any] | None]] = {
    "text": _texts,
    "id": _ids,
    "label": _numbers,
    "flag": _flags,
}


def _images(column: pa.ChunkedArray, where: str, folder: Path | None) -> list[Any] | None:
    """Return each image as the bytes of a file, as the path of one, or as its pixels."""
    import pyarrow as pa

    images: list[Any] | None
    kind, column = column.type, _plain(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        images, paths = [None] * len(column), column.to_pylist()
    elif _is_text(column.type):
        return column.to_pylist()
    elif pa.types.is_struct(column.type) and max(map(column.type.get_field_index, ("bytes", "path"))) >= 0:
        images, paths = (_texts(_field(column, name)) for name in ("bytes", "path"))
    else:
        return _pixels(column, where)
    if images is None or paths is None:
        return None
    return [
        _file(path, f"{where}, row {row}", folder) if image is None else image
        for row, (image, path) in enumerate(zip(images, paths, strict=True))
    ]


def _field(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a field of a struct, all null where the struct lacks it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type.get_field_index(name) < 0:  # it has none of that name, or several
        return pa.chunked_array([pa.nulls(len(column), pa.large_binary())])
    field = pc.struct_field(column, name)
    return field.cast(pa.large_binary()) if pa.types.is_null(field.type) else _plain(field)


def _file(path: bytes | None, where: str, folder: Path | None) -> Path:
    """Return the path of an image that is not in the table itself.

    Raises:
        InputError: there is no such file.
    """
    with suppress(OSError, ValueError):  # of what cannot be a path
        if path and folder and (found := folder / path.decode(errors="surrogateescape")).is_file():
            return found
    named = f"only the path {path.decode(errors='replace')[:200]!r}" if path else "neither bytes nor a path"
    beside = f", and there is no such file in {folder}" if path and folder else ""
    raise InputError(
        f"{where}: the image has {named}{beside}. Put the image files beside the table, or write their bytes into it."
    )


def _pixels(column: pa.ChunkedArray, where: str) -> list[NDArray[np.uint8]] | None:
    """Return the pixels of images that are nested lists of whole numbers, height by width by colours.

    Raises:
        InputError: a number is no value of a pixel.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    images: list[NDArray[np.uint8]] = []
    for chunk in column.chunks:
        shape, values = [], chunk
        while _is_list(values.type):
            lengths = pc.unique(pc.list_value_length(values)).to_pylist()
            if len(lengths) != 1:
                return None
            shape.append(lengths[0])
            values = values.flatten()
        if not pa.types.is_integer(values.type) or len(shape) < 2 or values.null_count:
            return None
        numbers = values.to_numpy(zero_copy_only=False)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() <= 255:
            row = int(np.argmax((numbers < 0) | (numbers > 255))) // int(np.prod(shape)) + len(images)
            raise InputError(f"{where}, row {row}: a pixel has {numbers.min()} to {numbers.max()}, expected 0 to 255.")
        images += list(numbers.astype(np.uint8).reshape(len(chunk), *shape))
    return images


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(check(kind) for check in checks)
