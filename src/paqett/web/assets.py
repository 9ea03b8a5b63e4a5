"""The pages' own files: a stylesheet, small scripts, the mark, and two scripts of others.

Each has a part of its content's hash in its name, so that a browser keeps it for good and still
has the new one at once. They are read at the start and answered from memory, small ones packed.
"""

import gzip
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from paqett.errors import NotFound

FOLDER = Path(__file__).parent / "static"
VENDOR = ("htmx.min.js", "uplot.min.js", "uplot.min.css")
"""What `hatch_build.py` copies out of npm packages into `vendor/`."""
_KINDS = (".css", ".js", ".svg")
_FOR_GOOD = "public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    """One file as it is sent; `packed` is the same by gzip."""

    url: str
    media_type: str
    plain: bytes
    packed: bytes


@cache
def assets() -> dict[str, Asset]:
    """Every file by its name in the folder."""
    paths = [*FOLDER.iterdir(), *(FOLDER / "vendor").glob("*")]
    return {path.name: _read(path) for path in sorted(paths) if path.suffix in _KINDS}


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    mark = hashlib.sha256(plain).hexdigest()[:12]
    media_type = mimetypes.types_map.get(path.suffix, "application/octet-stream")
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    url = f"/static/{path.stem}.{mark}{path.suffix}"
    return Asset(url, media_type, plain, gzip.compress(plain, 9, mtime=0))


@cache
def _by_url() -> dict[str, Asset]:
    return {asset.url: asset for asset in assets().values()}


def missing() -> list[str]:
    """Files of others that were not copied: pages do without, and somebody must be told."""
    return [name for name in VENDOR if name not in assets()]


def url(name: str) -> str:
    """Where the file is. Raises `KeyError` for one that is none of ours."""
    if name in VENDOR and name not in assets():
        return f"/static/{name}"
    return assets()[name].url


@get("/static/{name:str}", include_in_schema=False)
async def static(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """One file; the name carries its hash."""
    asset = _by_url().get(f"/static/{name}")
    if asset is None:
        raise NotFound("There is no such file.")
    headers = {"Cache-Control": _FOR_GOOD, "Vary": "Accept-Encoding"}
    packs = "gzip" in request.headers.get("accept-encoding", "")
    if packs:
        headers["Content-Encoding"] = "gzip"
    body = asset.packed if packs else asset.plain
    return Response(body, media_type=asset.media_type, headers=headers)
