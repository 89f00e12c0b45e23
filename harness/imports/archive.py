"""JSON objects in a ZIP file that anybody may have written: each is unpacked in memory, up to a limit."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from harness.errors import one_line
from harness.imports.bounded import refused
from harness.storage import JSON_BYTES

_ZSTANDARD = 93
"""The number of this packing in ZIP files; Python's own module reads it from version 3.14 on."""


def json_entry(opened: zipfile.ZipFile, file: Path, name: str) -> dict[str, Any]:
    """One JSON object in the ZIP file: unpacked to at most `JSON_BYTES`, whatever size it claims."""
    where = f"{file}:{name[:120]}"
    try:
        content = _unpacked(opened, file, opened.getinfo(name))
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise refused(where, f"could not be unpacked: {one_line(error)}") from error
    if len(content) > JSON_BYTES:
        raise refused(where, f"it unpacks to more than {JSON_BYTES:,} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refused(where, "it is not JSON") from error
    if not isinstance(found, dict):
        raise refused(where, f"it is a {type(found).__name__}, not an object")
    return found


def _unpacked(opened: zipfile.ZipFile, file: Path, info: zipfile.ZipInfo) -> bytes:
    """The content of an entry, up to one byte more than the limit."""
    if info.compress_type != _ZSTANDARD:
        with opened.open(info) as stream:
            return stream.read(JSON_BYTES + 1)
    import pyarrow

    if info.compress_size > JSON_BYTES:
        raise zipfile.BadZipFile(f"it has {info.compress_size:,} bytes packed")
    with file.open("rb") as raw:
        raw.seek(info.header_offset)
        name_length, extra_length = struct.unpack("<HH", raw.read(30)[26:30])
        raw.seek(name_length + extra_length, 1)
        packed = raw.read(info.compress_size)
    content = bytes(pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read(JSON_BYTES + 1))
    if len(content) <= JSON_BYTES and zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("its checksum is wrong")
    return content
