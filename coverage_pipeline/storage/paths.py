"""Paths from settings and arguments: local ones and those of object stores, never read as anything else than they say."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from upath import UPath

from coverage_pipeline.storage.errors import StoreError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_FILE_URL = re.compile(r"(file|local):/", re.IGNORECASE)


def storage_path(address: str | Path | UPath) -> UPath:
    """The place that a setting, an option or an argument names; every path from outside goes through here.

    A plain path is taken as it stands: ``#``, ``?`` and ``%`` are letters of a name, and only a leading ``~/`` is the home folder.
    A ``file://`` address is decoded as the URL that it is. Any other ``scheme://`` belongs to fsspec. A local path that contains
    ``..`` is resolved as the system resolves it, so that files which stand beside the place are made where it really lies.

    Raises ``StoreError`` for an address that names no place, or not clearly one.
    """
    if isinstance(address, UPath):
        return _local(address.path) if is_local(address) else address
    if isinstance(address, Path):
        return _local(str(address))
    if not address.strip() or "\0" in address:
        raise StoreError(f"{address!r} is no path: name a folder, a file, or the URL of one")
    if _FILE_URL.match(address):
        return _local(_path_of_file_url(address))
    url = _URL.match(address)
    if url is None:
        return _local(str(Path(address).expanduser()) if address == "~" or address.startswith("~/") else address)
    try:
        path = UPath(address)
        _ = path.path
    except Exception as error:  # whatever the client of that protocol raises; its words may repeat a login
        raise StoreError(f"cannot use an address that begins with {url[0]}: {type(error).__name__}; give a path or s3://…") from None
    return path


def _path_of_file_url(address: str) -> str:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(f"{address} names the machine {parts.netloc!r}: write file:///… with three slashes, or the plain path")
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        raise StoreError(f"{address} is not clear: in a file:// address # is written %23 and ? is written %3F; or give the plain path")
    path = unquote(parts.path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise StoreError(f"{address} names no file or folder: write file:///… with three slashes, or the plain path")
    return path


def _local(path: str) -> UPath:
    """A local path; ``..`` is resolved, for ``x/..`` has no name and no folder that it stands in."""
    parts = Path(path).parts
    if ".." in parts:
        last = len(parts) - 1 - parts[::-1].index("..")
        return UPath(Path(*parts[: last + 1]).resolve().joinpath(*parts[last + 1 :]))
    return UPath(Path(path))


def is_local(path: UPath) -> bool:
    """Whether a path lies in the machine's own file system."""
    return path.protocol in ("", "file", "local")


def vector_source(path: UPath) -> str | BinaryIO:
    """A local vector file as geopandas can be given it: GDAL's reader cuts a path at ``;`` and ``!``, so such a file goes as its bytes."""
    if "!" in path.path or ";" in path.path:
        return io.BytesIO(Path(path.path).read_bytes())
    return str(path.path)


def sibling(path: UPath, suffix: str) -> UPath:
    """The file beside ``….parquet`` that ends in ``suffix`` instead."""
    return path.parent / (path.name.removesuffix(".parquet") + suffix)
