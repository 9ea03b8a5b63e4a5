"""Live streams over a real server: what is stored is seen, by its owner, and by nobody else."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import psycopg

from listening import PORT, process
from paqett import db
from paqett.broker import record
from paqett.broker.record import Event
from paqett.web import live, streams
from people import new_person
from ports import free_port
from support import Tenant, make_tenant

Heard = tuple[str, dict[str, Any]]


class Live:
    """A server, and clients with keys of their own."""

    def __init__(self, api: Any, url: str) -> None:
        self.api, self.url = api, url

    @asynccontextmanager
    async def client(self, tenant: Tenant, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        key = await self.api.key(tenant.account_id, **more)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, trust_env=False, timeout=15
        ) as client:
            yield client

    async def send(self, tenant: Tenant, body: Any, device: int = 0) -> httpx.Response:
        async with self.client(tenant) as client:
            path = f"/api/v1/devices/{tenant.devices[device]}/telemetry"
            return await client.post(path, json=body)


def run(api: Any, work: Any) -> None:
    settings = api.settings
    http = msgspec.structs.replace(settings.http, port=free_port(PORT))

    async def main() -> None:
        on_port = msgspec.structs.replace(settings, http=http)
        async with process(on_port, api.now) as one, asyncio.timeout(60):
            await work(Live(api, one.url))

    asyncio.run(main())


class Reader:
    """Reads events of one stream, each as its name and data."""

    def __init__(self, answer: httpx.Response) -> None:
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.task = asyncio.create_task(self._read(answer))

    async def _read(self, answer: httpx.Response) -> None:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                self._heard.put_nowait((name, json.loads(line.removeprefix("data: "))))
        self._heard.put_nowait(("closed", {}))

    async def next(self) -> Heard:
        return await self._heard.get()

    async def until(self, name: str) -> dict[str, Any]:
        while True:
            found, data = await self.next()
            if found == name:
                return data
            assert found != "closed"

    async def hear_nothing(self, seconds: float = 0.7) -> None:
        """But how the devices stand."""
        await asyncio.sleep(seconds)
        while not self._heard.empty():
            assert self._heard.get_nowait()[0] == "status"


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str) -> AsyncIterator[Reader]:
    async with client.stream("GET", f"/api/v1{path}") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        reader = Reader(answer)
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)


def test_a_stored_reading_is_seen_at_once_by_device_and_by_account(api, owner) -> None:
    device = owner.devices[0]

    async def work(it: Live) -> None:
        async with it.client(owner) as client:
            for path in (f"/devices/{device}/stream", "/stream"):
                async with listening(client, path) as reader:
                    await reader.until("status")
                    body = {"ts": "2026-01-01T00:00:00Z", "t": 1.5, "on": True, "mode": "auto"}
                    body["ts"] = it.api.now().isoformat()
                    assert (await it.send(owner, body)).status_code == 200
                    heard = [await reader.until("reading") for _ in range(3)]
                    shown = {row["metric"]: row["value"] for row in heard}
                    assert shown == {"t": 1.5, "on": True, "mode": "auto"}
                    assert {row["device"] for row in heard} == {device}
                    now = datetime.now(UTC)
                    for row in heard:
                        assert row["time"].endswith("Z")
                        assert now - datetime.fromisoformat(row["time"]) < timedelta(seconds=10)

    run(api, work)


def test_a_stream_begins_with_how_things_stand(api, owner) -> None:
    async def work(it: Live) -> None:
        await it.send(owner, {"t": 1})
        await it.send(owner, {"t": 2, "h": 3})
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            told = [await reader.until("status") for _ in range(2)]
            assert {status["device"] for status in told} == set(owner.devices)
            fresh = {status["device"]: status["data"]["status"] for status in told}
            assert fresh[owner.devices[0]] == "fresh"
            assert fresh[owner.devices[1]] == "never"
            rows = [await reader.until("reading") for _ in range(2)]
            assert {row["metric"]: row["value"] for row in rows} == {"t": 2.0, "h": 3.0}
            await reader.hear_nothing()

    run(api, work)


def test_another_account_and_another_device_hear_nothing(api, owner, attacker) -> None:
    async def work(it: Live) -> None:
        async with (
            it.client(attacker) as stranger,
            it.client(owner) as client,
            it.client(owner, devices=[owner.devices[1]]) as limited,
        ):
            for path in (f"/devices/{owner.devices[0]}/stream", "/devices/nosuch/stream"):
                assert (await stranger.get(f"/api/v1{path}")).status_code == 404
            path = f"/api/v1/devices/{owner.devices[0]}/stream"
            assert (await limited.get(path)).status_code == 404
            async with (
                listening(stranger, "/stream") as first,
                listening(client, f"/devices/{owner.devices[1]}/stream") as second,
                listening(limited, "/stream") as third,
            ):
                await it.send(owner, {"t": 1, "bad": [1]})
                for reader in (first, second, third):
                    await reader.hear_nothing()
                await it.send(owner, {"t": 2}, device=1)
                await first.hear_nothing()
                for reader in (second, third):
                    assert (await reader.until("reading"))["value"] == 2.0

    run(api, work)


def test_a_refusal_is_told_with_its_code(api, owner) -> None:
    async def work(it: Live) -> None:
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            await it.send(owner, {"t": [1, 2], "u": [3]})
            told = await reader.until("rejection")
            assert (told["device"], told["code"]) == (owner.devices[0], "bad_value")
            assert told["count"] == 2
            assert told["first_ts"] == told["last_ts"]

    run(api, work)


def test_a_duplicate_is_not_told_again(api, owner) -> None:
    async def work(it: Live) -> None:
        first, second = (it.api.now() - timedelta(seconds=s) for s in (20, 10))
        await it.send(owner, {"ts": first.isoformat(), "t": 1})
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            await reader.until("reading")
            await it.send(
                owner, [{"ts": first.isoformat(), "t": 9}, {"ts": second.isoformat(), "t": 2}]
            )
            assert (await reader.until("reading"))["value"] == 2.0
            await reader.hear_nothing()

    run(api, work)


def test_many_long_values_all_arrive(api, owner) -> None:
    async def work(it: Live) -> None:
        start = it.api.now() - timedelta(minutes=4)
        body = [
            {"ts": (start + timedelta(milliseconds=n)).isoformat(), "log": f"{n:04}" + "ü" * 250}
            for n in range(300)
        ]
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            await it.send(owner, body)
            heard = [(await reader.until("reading"))["value"][:4] for _ in range(300)]
            assert sorted(heard) == [f"{n:04}" for n in range(300)]

    run(api, work)


def test_a_changed_connection_is_told(api, owner, settings) -> None:
    device = owner.devices[0]

    async def work(it: Live) -> None:
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            for _ in range(2):
                await reader.until("status")
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                await conn.execute("INSERT INTO broker_record (seen_at) VALUES (now())")
                event = Event("connected", device, None, "203.0.113.7")
                await record.write(conn, [(datetime.now(UTC), event)])
            told = await reader.until("status")
            assert told["device"] == device
            assert told["connection"]["status"] == "online"
            assert told["connection"]["ip"] == "203.0.113.7"

    run(api, work)


def test_the_plan_limits_streams_and_a_closed_one_makes_room(make_api, database_url) -> None:
    tenant = make_tenant(database_url, "free", plan="free")

    async def work(it: Live) -> None:
        async with it.client(tenant) as client:
            async with listening(client, "/stream") as reader, listening(client, "/stream"):
                await reader.until("status")
                answer = await client.get("/api/v1/stream")
                assert (answer.status_code, answer.json()["code"]) == (409, "plan_limit")
                assert answer.json()["limit"] == 2
            for _ in range(100):
                async with client.stream("GET", "/api/v1/stream") as answer:
                    if answer.status_code == 200:
                        return
                await asyncio.sleep(0.05)
            raise AssertionError("the closed streams still count")

    run(make_api(), work)


def test_a_stream_ends_with_what_opened_it(api, owner, database_url, monkeypatch) -> None:
    monkeypatch.setattr(streams, "_TICK_S", 0.1)

    def change(text: str) -> None:
        with psycopg.connect(database_url) as conn:
            conn.execute(text)

    async def work(it: Live) -> None:
        async with httpx.AsyncClient(base_url=it.url, trust_env=False) as browser:
            await new_person(browser, it.api.settings)
            async with listening(browser, "/stream") as reader:
                change("UPDATE session SET hash = NULL, ended_at = now()")
                assert "gone" in (await reader.until("end"))["reason"]
                assert (await reader.next())[0] == "closed"
        for text in (
            "DELETE FROM api_key",
            "UPDATE api_key SET expires_at = now()",
            f"UPDATE account SET disabled_at = now() WHERE id = {owner.account_id}",
        ):
            async with it.client(owner) as client, listening(client, "/stream") as reader:
                await reader.until("status")
                change(text)
                assert "gone" in (await reader.until("end"))["reason"]
            change("UPDATE account SET disabled_at = NULL")
        async with it.client(owner) as client:
            path = f"/devices/{owner.devices[0]}"
            async with listening(client, f"{path}/stream") as reader:
                await reader.until("status")
                assert (await client.delete(f"/api/v1{path}")).status_code == 204
                assert "gone" in (await reader.until("end"))["reason"]

    run(api, work)


def test_a_flush_that_did_not_see_the_stream_is_told_a_moment_later(
    api, owner, database_url
) -> None:
    async def work(it: Live) -> None:
        await it.send(owner, {"ts": (it.api.now() - timedelta(minutes=1)).isoformat(), "t": 1})
        async with it.client(owner) as client, listening(client, "/stream") as reader:
            assert (await reader.until("reading"))["value"] == 1.0
            with psycopg.connect(database_url) as conn:
                conn.execute(
                    "INSERT INTO telemetry_own SELECT now(), account_id, id, 2 FROM series"
                )
            assert (await reader.until("reading"))["value"] == 2.0

    run(api, work)


def test_without_the_database_streams_end_and_come_back(api, owner, database_url) -> None:
    async def work(it: Live) -> None:
        async with it.client(owner) as client:
            async with listening(client, "/stream") as reader:
                await reader.until("status")
                with psycopg.connect(database_url) as conn:
                    conn.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'paqett api live'"
                    )
                assert "database" in (await reader.until("end"))["reason"]
            await it.send(owner, {"t": 5})
            async with listening(client, "/stream") as reader:
                assert (await reader.until("reading"))["value"] == 5.0

    run(api, work)


def test_a_reader_that_takes_nothing_is_let_go_and_the_others_go_on(
    api, owner, database_url, monkeypatch
) -> None:
    monkeypatch.setattr(streams, "_SEND_S", 0.3)
    monkeypatch.setattr(live, "_MOST_WAITING", 50)
    host = "127.0.0.1"

    def open_streams() -> int:
        with psycopg.connect(database_url) as conn:
            row = conn.execute("SELECT count(*) FROM stream WHERE until > now()").fetchone()
            assert row
            return row[0]

    async def work(it: Live) -> None:
        key = await it.api.key(owner.account_id)
        port = int(it.url.rpartition(":")[2])
        with socket.create_connection((host, port)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            deaf.sendall(head.encode())
            for _ in range(100):
                if open_streams() == 1:
                    break
                await asyncio.sleep(0.05)
            assert open_streams() == 1
            async with it.client(owner) as client, listening(client, "/stream") as reader:
                await reader.until("status")
                sent = 0
                while open_streams() > 1:
                    start = it.api.now() - timedelta(minutes=4) + timedelta(seconds=sent)
                    body = [
                        {"ts": (start + timedelta(milliseconds=n)).isoformat(), "log": "x" * 500}
                        for n in range(400)
                    ]
                    assert (await it.send(owner, body)).status_code == 200
                    sent += 1
                    assert sent < 100
                    for _ in range(400):
                        await reader.until("reading")

    run(api, work)
