"""`paqett query` and `paqett export`: an account's readings over the HTTP API, with an API key."""

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import msgspec

from paqett.cli.commands import JSON, Commands, arg, flag
from paqett.cli.output import say, write
from paqett.client import Client, Row
from paqett.errors import ConfigurationError
from paqett.local import state
from paqett.settings import Settings

_MOST_DEVICES = 1000  # of one query
_SHOWN_EVERY_S = 0.2
_BAR = 24
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z(?=[,\"])")
_QUERY = ("metrics", "from", "to", "bucket", "agg", "tz", "fill", "points", "order")


def register(commands: Commands) -> None:
    """Reading, with an API key, from wherever the API is reached."""
    asked = (
        arg("devices", nargs="*", metavar="DEVICE", help="its id; none: all"),
        arg("--tag", help="instead of ids: the devices with this tag"),
        arg("--metrics", help="names separated by commas; default: all"),
        arg("--from", help="RFC 3339 or relative like -24h (the default)"),
        arg("--to", help="the same; default: open"),
        arg("--bucket", help="10s, 5m, 1h, 1d, 1w, 1mo; default: raw readings"),
        arg("--points", type=int, help="at most so many buckets of a metric"),
        arg("--agg", help="avg,min,max,sum,count,first,last,p50,p95"),
        arg("--tz", help="where days begin, like Europe/Berlin"),
        arg("--fill", choices=("none", "null", "previous")),
        arg("--order", choices=("asc", "desc")),
        arg("--url", help="the API's address; default: client.url, or what is up"),
        arg("--key-file", type=Path, help="a file with the API key"),
    )
    commands.add(
        "query", _query, "show readings of an account, with its API key", *asked,
        arg("--limit", type=int, default=1000, help="rows to show at most"),
        flag("--csv", "print CSV"), JSON,
    )  # fmt: skip
    commands.add(
        "export", _export, "write a whole range of readings to a file", *asked,
        arg("--output", type=Path, help="a file, whole or not at all; default: stdout"),
        flag("--json", "NDJSON instead of CSV"), flag("--quiet", "no progress"),
    )  # fmt: skip


def _query(settings: Settings, arguments: argparse.Namespace) -> int:
    """Show rows as a table, JSON or CSV; what is beyond the limit is said on standard error."""
    with _client(settings, arguments) as client:
        asked = _asked(arguments)
        size = max(1, min(10_000, arguments.limit))
        found = _rows(client, _devices(client, arguments), {**asked, "page_size": size})
        rows = list(islice(found, arguments.limit))
        more = next(found, None) is not None
    columns = _columns(asked)
    plain = map(msgspec.to_builtins, rows)
    shown = [{name: row.get(name) for name in columns} for row in plain]
    if arguments.json:
        write(json.dumps(shown))
    elif arguments.csv:
        _write_csv(columns, shown, sys.stdout)
    else:
        write(table(columns, shown))
    if more:
        say(f"the first {len(rows)} rows; more follow (--limit, or paqett export)")
    return 0


def _export(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the whole range as CSV or NDJSON. Raises `Unreachable` where it breaks off."""
    form = "ndjson" if arguments.json else "csv"
    with _client(settings, arguments) as client, _output(arguments.output) as output:
        devices, asked = _devices(client, arguments), _asked(arguments)
        progress = Progress(*_span(client, devices, asked), quiet=arguments.quiet)
        for number, ids in enumerate(_batches(devices)):
            chunks: Iterable[bytes] = client.export(ids, form, **asked)  # type: ignore[arg-type]
            for chunk in _without_heading(chunks) if number and form == "csv" else chunks:
                output.write(chunk)
                progress.add(chunk)
        output.flush()
        progress.end()
    return 0


def _client(settings: Settings, arguments: argparse.Namespace) -> Client:
    """By the flags, the settings, or what runs here. Raises `ConfigurationError`."""
    url, key = arguments.url or settings.client.url, settings.client.key
    if arguments.key_file is not None:
        key = arguments.key_file.read_text().strip()
    if not (url and key) and (settings.data_dir / "up.json").exists():
        here = state.load(settings.data_dir.resolve())
        url, key = url or here.api_url, key or here.api_key
    if not url or not key:
        raise ConfigurationError(
            "set PAQETT_CLIENT__URL and PAQETT_CLIENT__KEY (or _FILE), or --url and --key-file"
        )
    return Client(url, key)


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(arguments, name) for name in _QUERY}
    asked = {name: value for name, value in given.items() if value is not None}
    for name in ("metrics", "agg"):
        if name in asked:
            asked[name] = [word for word in asked[name].split(",") if word]
    if "from" in asked:
        asked["from_"] = asked.pop("from")
    return asked


def _devices(client: Client, arguments: argparse.Namespace) -> list[str]:
    """Those named, those with the tag, or all. Raises `ConfigurationError` where both are given."""
    if arguments.devices and arguments.tag:
        raise ConfigurationError("give devices or --tag, not both")
    return arguments.devices or [device.id for device in client.devices(tag=arguments.tag)]


def _batches(devices: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(devices), _MOST_DEVICES):
        yield devices[start : start + _MOST_DEVICES]


def _rows(client: Client, devices: list[str], asked: dict[str, Any]) -> Iterator[Row]:
    for ids in _batches(devices):
        yield from client.readings(ids, **asked)


def _columns(asked: dict[str, Any]) -> list[str]:
    """As the API orders them."""
    bucketed = "bucket" in asked or "points" in asked
    names = list(dict.fromkeys(asked.get("agg", ["avg"]))) if bucketed else []
    return ["time", "device", "metric", *names, *(["value"] if len(names) < 2 else [])]


def _span(
    client: Client, devices: list[str], asked: dict[str, Any]
) -> tuple[datetime, datetime]:  # fmt: skip
    """Where the export begins and where it ends, as clamped and up to now.

    It also refuses what is wrong before anything is written.
    """
    now = datetime.now(UTC)
    if not devices:
        return now, now
    page = client.page(devices[:_MOST_DEVICES], **asked, limit=1)
    span = (page.from_, min(page.to, now))
    return span[::-1] if asked.get("order") == "desc" else span


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name when it is whole."""
    if path is None:
        yield sys.stdout.buffer
        return
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _without_heading(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held: bytes | None = b""
    for chunk in chunks:
        if held is None:
            yield chunk
            continue
        held += chunk
        _, found, rest = held.partition(b"\n")
        if found:
            held = None
            yield rest


class Progress:
    """A bar on standard error, where that is a terminal: how far in time, rows, megabytes."""

    def __init__(
        self, start: datetime, end: datetime, *, quiet: bool = False, screen: TextIO | None = None
    ) -> None:
        self._screen = screen or sys.stderr
        self._start, self._end = start, end
        self._live = not quiet and self._screen.isatty()
        self._quiet = quiet
        self._shown_at = self._began = time.monotonic()
        self._rows = self._bytes = 0

    def add(self, chunk: bytes) -> None:
        """Bytes that have been written."""
        self._rows += chunk.count(b"\n")
        self._bytes += len(chunk)
        if self._live and time.monotonic() - self._shown_at > _SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            share = self._share(chunk)
            bar = "#" * round(_BAR * share)
            self._screen.write(f"\r[{bar:<{_BAR}}] {share:4.0%}  {self._figures()}")
            self._screen.flush()

    def end(self) -> None:
        """One line of what there was."""
        if self._live:
            self._screen.write("\r\x1b[K")
        if not self._quiet:
            took = time.monotonic() - self._began
            self._screen.write(f"paqett: {self._figures()} in {took:.1f} s\n")
            self._screen.flush()

    def _figures(self) -> str:
        return f"{self._rows:,} lines, {self._bytes / 1e6:,.1f} MB"

    def _share(self, chunk: bytes) -> float:
        """How much of the range lies behind the last whole line's time."""
        found = _TIME.findall(chunk)
        whole = abs(self._end - self._start)
        if not found or not whole:
            return 0.0
        passed = datetime.fromisoformat(found[-1].decode()) - self._start
        return min(1.0, abs(passed) / whole)


def table(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """Columns under their names, numbers to the right."""
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(row.get(name)) for row in rows) for name in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _cell(value: Any) -> str:
    """As text; what could move a terminal's cursor is escaped."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _write_csv(columns: list[str], rows: list[dict[str, Any]], output: TextIO) -> None:
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool) else value
