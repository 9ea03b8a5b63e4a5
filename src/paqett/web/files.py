"""A file of ours as a download: piece by piece, from anywhere in it, so that it can be resumed."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.response import Stream

from paqett.errors import NotFound, Problem

_PIECE = 262_144
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class RangeNotSatisfiable(Problem):
    """The part that was asked for begins behind the file's end."""

    status = 416
    code = "range_not_satisfiable"
    title = "Range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"}
        )


async def download(
    request: Request[Any, Any, State], path: Path, name: str, digest: str, media_type: str
) -> Stream:
    """The file as an attachment called `name`; `digest` is its ETag.

    Raises `NotFound` where it is not there, `RangeNotSatisfiable`.
    """
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
    except FileNotFoundError:
        raise NotFound("The file is not there any more.") from None
    part = _asked(request, size, f'"{digest}"')
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(len(part or range(size))),
        "ETag": f'"{digest}"',
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Stream(
        _pieces(path, part or range(size)), status_code=200 if part is None else 206,
        media_type=media_type, headers=headers,
    )  # fmt: skip


def _asked(request: Request[Any, Any, State], size: int, tag: str) -> range | None:
    """The part `Range` names (RFC 9110 §14), or None for the whole: also what is not understood."""
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if found is None or request.headers.get("if-range", tag) != tag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        part = range(max(0, size - int(last)), size)
    else:
        part = range(int(first), min(size, int(last) + 1) if last else size)
        if last and int(last) < int(first):
            return None
    if not part:
        raise RangeNotSatisfiable(size)
    return part


async def _pieces(path: Path, part: range) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        await asyncio.to_thread(file.seek, part.start)
        left = len(part)
        # one that is shorter than it was breaks the connection before its length
        while left and (piece := await asyncio.to_thread(file.read, min(left, _PIECE))):
            left -= len(piece)
            yield piece
