"""`paqett query` and `paqett export`, and the client they use, against a real server."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from listening import listening
from paqett import cli, keys, log
from paqett.cli import telemetry
from paqett.client import ApiProblem, Client, Device, Row, Unreachable
from paqett.db import Connection
from paqett.principals import SCOPES
from support import in_database

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


class Served(msgspec.Struct):
    """An API process in a thread, and a key for it."""

    url: str
    key: str
    devices: list[str]


@pytest.fixture
def served(database_url: str, owner: Any) -> Iterator[Served]:
    started, stopped = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with listening(database_url) as running:
            found.append(running.url)
            started.set()
            await asyncio.to_thread(stopped.wait)

    async def make_key(conn: Connection) -> str:
        return (await keys.create(conn, owner.account_id, "test", sorted(SCOPES), None, None)).key

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield Served(found[0], in_database(database_url, make_key), owner.devices)
    finally:
        stopped.set()
        thread.join(30)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, served.key) as client:
        yield client


def readings(number: int, metric: str = "t") -> list[dict[str, Any]]:
    times = [HOUR + timedelta(seconds=n) for n in range(number)]
    return [{"ts": time.isoformat(), metric: float(n)} for n, time in enumerate(times)]


def test_what_is_sent_is_read_back_page_after_page(client, served) -> None:
    device = served.devices[0]
    stored = client.send(device, readings(25))
    assert (stored.accepted, stored.duplicates, stored.rejected) == (25, 0, [])
    assert client.send(device, {"ts": HOUR, "t": 0.0}).duplicates == 1
    rows = list(client.readings(device, from_=HOUR, page_size=7))
    assert [row.value for row in rows] == [float(n) for n in range(25)]
    assert rows[1] == Row(HOUR + timedelta(seconds=1), device, "t", 1.0)
    [bucket] = client.readings(
        served.devices, metrics=["t"], from_=HOUR, to=HOUR + timedelta(hours=1), bucket="1h",
        agg=["max", "count"], tz="Europe/Berlin", order="desc",
    )  # fmt: skip
    assert (bucket.max, bucket.count, bucket.value) == (24.0, 25, None)


def test_the_rest_of_the_api_a_program_needs(client, served) -> None:
    made = client.create_device("greenhouse", tags=["home"])
    assert made.secret
    names = {device.thing_name for device in client.devices()}
    assert names == {"owner-0", "owner-1", "greenhouse"}
    [tagged] = client.devices(tag="home")
    assert tagged == Device(made.id, "greenhouse", None, ["home"], made.created_at)
    client.send(made.id, [*readings(3), {"on": True}, {"mode": "auto"}])
    latest = {one.metric: (one.kind, one.value) for one in client.latest(made.id)}
    assert latest == {"t": ("number", 2.0), "on": ("boolean", True), "mode": ("text", "auto")}
    assert len(client.latest()) == len(client.latest(tag="home")) == 3
    client.delete(made.id, HOUR, HOUR + timedelta(seconds=2), metrics=["t"])
    assert [row.value for row in client.readings(made.id, metrics=["t"], from_="-1d")] == [2.0]


def test_refusals_are_problems_with_their_code(client, served) -> None:
    with pytest.raises(ApiProblem) as refused:
        client.latest("nothing")
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    with pytest.raises(ApiProblem) as refused:
        list(client.readings(served.devices, bucket="5"))
    assert (refused.value.status, refused.value.extra["field"]) == (422, "bucket")
    with pytest.raises(ApiProblem) as refused:
        list(client.export(served.devices, from_="-1h", to="-2h"))
    assert refused.value.extra["field"] == "from"
    with Client(served.url, "pqt_wrong") as stranger, pytest.raises(ApiProblem) as refused:
        stranger.latest()
    assert refused.value.code == "unauthorized"


def test_what_is_not_there_or_no_api_is_unreachable() -> None:
    with Client("http://127.0.0.1:9", "k") as client, pytest.raises(Unreachable):
        client.latest()
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with Client("http://x", "k", transport=page) as client, pytest.raises(Unreachable):
        client.latest()
    busy = httpx.MockTransport(lambda _: httpx.Response(429, headers={"Retry-After": "7"}))
    with Client("http://x", "k", transport=busy) as client, pytest.raises(ApiProblem) as refused:
        client.latest()
    assert (refused.value.code, refused.value.retry_after) == ("http_error", 7)


@pytest.fixture
def run(served, monkeypatch, tmp_path, capsys):  # type: ignore[no-untyped-def]
    """The command line: exit code, standard output, standard error."""
    key_file = tmp_path / "key"
    key_file.write_text(served.key + "\n")
    monkeypatch.setenv("PAQETT_CLIENT__URL", served.url)
    monkeypatch.setenv("PAQETT_CLIENT__KEY_FILE", str(key_file))
    monkeypatch.setenv("PAQETT_PAQETT__DATA_DIR", str(tmp_path / "none"))

    # the server runs in this process too, and notes a request after it has answered it
    monkeypatch.setenv("PAQETT_LOG__LEVEL", "error")
    log.configure("error", "console", "test")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(words))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_query_shows_tables_json_and_csv(run, client, served) -> None:
    device = served.devices[0]
    client.send(device, [*readings(3), {"ts": HOUR.isoformat(), "mode": 'a "b", c'}])
    start = HOUR.isoformat()
    code, out, err = run("query", device, "--from", start, "--metrics", "t", "--limit", "2")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["time", "device", "metric", "value"],
        [HOUR.isoformat().replace("+00:00", "Z"), device, "t", "0.0"],
        [(HOUR + timedelta(seconds=1)).isoformat().replace("+00:00", "Z"), device, "t", "1.0"],
    ]
    assert "more follow" in err
    code, out, err = run("query", "--from", start, "--json")
    assert (code, err) == (0, "")
    assert [row["value"] for row in json.loads(out)] in (
        [0.0, 'a "b", c', 1.0, 2.0], ['a "b", c', 0.0, 1.0, 2.0],
    )  # fmt: skip
    code, out, _ = run("query", device, "--from", start, "--metrics", "mode", "--csv")
    assert out.splitlines()[0] == "time,device,metric,value"
    assert out.splitlines()[1].endswith(',mode,"a ""b"", c"')
    code, out, _ = run(
        "query", device, "--from", start, "--bucket", "1h", "--agg", "max,count", "--metrics", "t",
        "--fill", "null", "--json",
    )  # fmt: skip
    rows = json.loads(out)
    assert (rows[0]["max"], rows[0]["count"]) == (2.0, 3)
    assert (rows[1]["max"], rows[1]["count"]) == (None, None)
    code, out, _ = run("query", device, "--from", "-5h", "--to", "-1h", "--metrics", "t", "--json")
    assert (code, [row["value"] for row in json.loads(out)]) == (0, [0.0, 1.0, 2.0])


def test_export_writes_the_whole_range_or_no_file(run, client, served, tmp_path) -> None:
    client.send(served.devices[0], readings(300))
    client.send(served.devices[1], readings(300, "u"))
    path: Path = tmp_path / "out.csv"
    code, out, err = run("export", "--from", HOUR.isoformat(), "--output", str(path))
    assert (code, out) == (0, "")
    assert "601 lines" in err
    lines = path.read_text().splitlines()
    assert (lines[0], len(lines)) == ("time,device,metric,value", 601)
    path.unlink()
    code, _, err = run("export", "nothing", "--output", str(path))
    assert code == 1
    assert "no device nothing" in err
    assert list(tmp_path.glob("out*")) == []


def test_export_in_batches_of_devices_has_one_heading(run, client, served, monkeypatch) -> None:
    for device in served.devices:
        client.send(device, readings(5))
    monkeypatch.setattr(telemetry, "_MOST_DEVICES", 1)
    code, out, err = run("export", "--from", HOUR.isoformat(), "--quiet")
    shown = out.splitlines()
    assert (code, len(shown), err) == (0, 11, "")
    assert shown[0] == "time,device,metric,value"
    assert "time,device,metric,value" not in shown[1:]
    _, out, _ = run("export", "--from", HOUR.isoformat(), "--json", "--quiet")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 10
    assert {row["device"] for row in rows} == set(served.devices)


def test_a_broken_export_leaves_no_file(run, served, tmp_path, monkeypatch) -> None:
    def breaking(*_: object, **__: object) -> Iterator[bytes]:
        yield b"time,device,metric,value\n"
        raise Unreachable("it broke off")

    monkeypatch.setattr(Client, "export", breaking)
    code, _, err = run("export", "--output", str(tmp_path / "out.csv"))
    assert code == 1
    assert "it broke off" in err
    assert list(tmp_path.glob("out*")) == []


def test_what_is_missing_or_wrong_is_said(run, monkeypatch) -> None:
    assert run("query", "d", "--tag", "t")[0] == 2
    code, _, err = run("query", "--bucket", "5")
    assert (code, "bucket is" in err) == (1, True)
    monkeypatch.delenv("PAQETT_CLIENT__URL")
    code, _, err = run("query")
    assert code == 2
    assert "PAQETT_CLIENT__URL" in err


def test_a_terminal_sees_how_far_it_is(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(telemetry, "_SHOWN_EVERY_S", -1.0)
    progress = telemetry.Progress(HOUR, HOUR + timedelta(hours=2), screen=screen)
    middle = (HOUR + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    progress.add(f"time,device,metric,value\n{middle},d,t,1.0\n{HOUR.isoformat()[:9]}".encode())
    assert " 50%  2 lines, 0.0 MB" in screen.getvalue()
    assert screen.getvalue().count("#") == 12
    progress.end()
    assert screen.getvalue().endswith("s\n")


def test_a_table_moves_no_cursor() -> None:
    text = telemetry.table(["metric", "value"], [{"metric": "a\x1b[2J", "value": None}])
    assert "\x1b" not in text
    assert text.split() == ["metric", "value", "a\\x1b[2J", "-"]
