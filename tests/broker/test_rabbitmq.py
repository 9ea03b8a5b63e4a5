"""What RabbitMQ's events mean, what a device may do, and how its server is looked after.

A real server is in test_rabbitmq_server.py; here its management API is one that answers by hand.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from paqett import db
from paqett.broker import emqx, following, management, rabbitmq
from paqett.broker.management import Management, ManagementAway, Open
from paqett.broker.rabbit_events import Watch
from paqett.mqtt import access
from paqett.mqtt.credentials import verifier, writer_client_id
from paqett.settings import Settings
from support import Tenant, with_url

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND = "203.0.113.7:40000 -> 192.0.2.1:1883", "203.0.113.8:40001 -> 192.0.2.1:1883"


def say(watch: Watch, what: str, name: str = FIRST, user: str = "dev1") -> list[tuple[str, ...]]:
    """Events as (kind, reason or address)."""
    signing = what.startswith("user/")
    properties = {
        "connection_name" if signing else "name": name,
        "name" if signing else "user": user,
        "timestamp_in_ms": "1767225600000",
    }
    heard = watch.hear(what, properties)
    assert {one.at for one in heard} <= {NOW}
    assert {one.event.client for one in heard} <= {user}
    return [(one.event.kind, one.event.reason or one.event.ip or "") for one in heard]


CREATED, CLOSED = "connection/created", "connection/closed"
SIGNED_IN, FAILED = "user/authentication/success", "user/authentication/failure"


def test_a_connection_comes_and_goes() -> None:
    watch = Watch()
    assert say(watch, SIGNED_IN) == []
    assert say(watch, CREATED) == [("connected", "203.0.113.7")]
    assert say(watch, CREATED) == [], "told twice is once"
    assert say(watch, CLOSED) == [("disconnected", "connection ended")]
    assert say(watch, CLOSED) == []


def test_the_same_client_id_takes_over_in_the_brokers_order() -> None:
    watch = Watch()
    say(watch, CREATED)
    say(watch, SIGNED_IN, SECOND)
    assert say(watch, CLOSED) == [("taken_over", "another connection signed in")]
    assert say(watch, CREATED, SECOND) == [("connected", "203.0.113.8")]


def test_under_another_client_id_the_older_connection_is_to_be_closed() -> None:
    watch = Watch()
    say(watch, CREATED)
    heard = watch.hear(
        CREATED, {"name": SECOND, "user": "dev1", "timestamp_in_ms": "1767225600000"}
    )
    assert [one.event.kind for one in heard] == ["taken_over", "connected"]
    assert heard[0].close == (FIRST,)
    assert watch.has(FIRST)
    assert say(watch, CLOSED) == [], "that it was taken over has been said"
    assert not watch.has(FIRST)
    assert say(watch, CLOSED, SECOND) == [("disconnected", "connection ended")]


def test_what_we_close_is_told_as_cut_off_and_a_refusal_as_one() -> None:
    watch = Watch()
    say(watch, CREATED)
    watch.will_cut_off("dev1")
    assert say(watch, CLOSED) == [("disconnected", "cut off by the platform")]
    [(kind, reason)] = say(watch, FAILED)
    assert kind == "refused"
    assert "wrong secret" in reason


@pytest.mark.parametrize(
    "properties",
    [
        {"name": FIRST, "user": "paqett.ingest", "timestamp_in_ms": "1"},
        {"name": FIRST, "user": "dev1", "timestamp_in_ms": "soon"},
        {"name": "", "user": "dev1", "timestamp_in_ms": "1"},
        {"user": "dev1"},
        {},
    ],
)
def test_what_is_the_platforms_or_not_understood_is_no_event(properties: dict[str, str]) -> None:
    assert Watch().hear(CREATED, properties) == []
    assert Watch().hear("connection/else", properties) == []


def test_addresses_of_both_families_are_read() -> None:
    watch = Watch()
    assert say(watch, CREATED, "[2001:db8::1]:4 -> [::]:1883") == [("connected", "2001:db8::1")]
    watch = Watch()
    assert say(watch, CREATED, "2001:db8::1:4 -> :::1883") == [("connected", "2001:db8::1")]
    watch = Watch()
    assert say(watch, CREATED, "::ffff:203.0.113.7:4 -> x") == [("connected", "203.0.113.7")]
    watch = Watch()
    assert say(watch, CREATED, "elsewhere") == [("connected", "")]


def test_the_record_is_put_right_from_what_is_open() -> None:
    watch = Watch()
    listed = [Open(FIRST, "came", "203.0.113.7", NOW), Open(SECOND, "stayed"), Open("x", "a.b")]
    heard = watch.begin(listed, ["stayed", "left"], NOW)
    assert [(one.event.kind, one.event.client) for one in heard] == [
        ("disconnected", "left"),
        ("connected", "came"),
    ]
    assert say(watch, CLOSED, SECOND, "stayed") == [("disconnected", "connection ended")]


@pytest.mark.parametrize(
    ("permission", "topic", "may"),
    [
        ("write", "paqett/v1/dev1/telemetry", True),
        ("write", "paqett/v1/dev1/telemetry/a/b", True),
        ("write", "paqett/v1/dev1", True),
        ("write", "paqett/v1/dev1x/telemetry", False),
        ("write", "paqett/v1/dev2/telemetry", False),
        ("write", "paqett/v1/+/telemetry", False),
        ("read", "paqett/v1/dev1/errors", True),
        ("read", "paqett/v1/dev1/errors/x", False),
        ("read", "paqett/v1/dev1/#", False),
        ("read", "paqett/v1/dev1/+", False),
        ("read", "paqett/v1/+/errors", False),
        ("read", "paqett/v1/dev2/errors", False),
        ("read", "#", False),
        ("read", "$share/g/paqett/v1/dev1/errors", False),
    ],
)
def test_a_device_may_write_below_its_prefix_and_read_its_errors(
    permission: access.Permission, topic: str, may: bool
) -> None:
    assert access.allowed("dev1", permission, topic) is may
    assert not access.allowed("+", permission, topic.replace("dev1", "+"))


class Server:
    """RabbitMQ's management API, as far as we use it; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 204
        self.listed: list[dict[str, object]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.raw_path.decode()}")
        if self.status >= 400:
            return httpx.Response(self.status)
        return httpx.Response(200, json=self.listed)

    def management(self, settings: Settings) -> Management:
        return Management(settings, httpx.MockTransport(self.answer))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return with_url(
        database_url,
        PAQETT_BROKER__KIND="rabbitmq",
        PAQETT_BROKER__MANAGEMENT_URL="http://127.0.0.1:1",
        PAQETT_BROKER__AUTH_SECRET="a" * 40,
        PAQETT_MQTT__PASSWORD="p" * 32,
        PAQETT_PAQETT__DATA_DIR=str(tmp_path),
    )


def test_whose_secret_changed_is_cut_off_even_if_that_was_another_life(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    one, other = owner.devices
    api = Server()
    api.listed = [{"name": FIRST, "user": one}, {"name": SECOND, "user": "paqett.ingest"}]

    async def round_of(server: rabbitmq.Server) -> list[str]:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            await following.sync(conn, server)
            await server.settle(conn)
        asked, api.asked = api.asked, []
        return sorted(asked)

    def change(statement: str) -> None:
        with psycopg.connect(database_url) as conn:
            conn.execute(statement, {"new": verifier("new"), "one": one, "other": other})

    async def work() -> None:
        async with api.management(settings) as management:
            server = rabbitmq.Server(settings, management)
            close = "DELETE /api/connections/username/"
            assert await round_of(server) == [close + one, "GET /api/connections"], "the first time"
            assert await round_of(server) == []
            change("UPDATE device SET verifier = %(new)s WHERE id = %(one)s")
            assert await round_of(server) == [close + one]
            server = rabbitmq.Server(settings, management)
            assert await round_of(server) == [], "it is remembered"
            change("DELETE FROM device WHERE id = %(other)s")
            api.status = 503
            assert await round_of(server) == [close + other]
            server = rabbitmq.Server(settings, management)
            api.status = 204
            assert await round_of(server) == [close + other], "it was not closed before"

    asyncio.run(work())


def created(device: str, name: str, at: datetime) -> dict[str, str]:
    """What the broker says of a connection."""
    return {"name": name, "user": device, "timestamp_in_ms": f"{at.timestamp() * 1000:.0f}"}


class Watched:
    """What looks after a broker, told by hand who comes; `round` is what it asks for then."""

    def __init__(self, settings: Settings, management: Management, api: Server) -> None:
        self.server = rabbitmq.Server(settings, management)
        self.server._known, self.server._begun = {}, True
        self._api, self._number = api, 0

    def comes(self, device: str, at: datetime | None = None) -> None:
        self._number += 1
        name = f"203.0.113.7:{self._number} -> 192.0.2.1:1883"
        self.server._hear(CREATED, created(device, name, at or datetime.now(UTC)))

    def goes(self, device: str) -> None:
        name = f"203.0.113.7:{self._number} -> 192.0.2.1:1883"
        self.server._hear(CLOSED, created(device, name, datetime.now(UTC)))

    async def round(self) -> list[str]:
        await self.server._close_due()
        asked, self._api.asked = self._api.asked, []
        return [one for one in asked if one.startswith("DELETE")]


def test_who_signs_in_with_a_new_secret_at_once_gets_in_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_LATE_SIGN_IN_S", 0.3)
    api = Server()

    async def work() -> list[list[str]]:
        async with api.management(settings) as management:
            watched = Watched(settings, management, api)
            await watched.server.admit({"dev1": "old"})
            watched.comes("dev1")
            await watched.server.admit({"dev1": "new"})
            rounds = []
            for _ in range(8):
                rounds.append(await watched.round())
                if rounds[-1]:
                    watched.goes("dev1")
                    watched.comes("dev1")
                await asyncio.sleep(0.1)
            return rounds

    rounds = asyncio.run(work())
    close = ["DELETE /api/connections/username/dev1"]
    assert rounds[:2] == [close, close], "it may have been let in by the old secret"
    assert rounds[-2:] == [[], []]


def test_a_sign_in_that_was_answered_long_ago_does_not_outlive_its_device(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_LATE_SIGN_IN_S", 0.0)
    api = Server()

    async def work() -> None:
        async with api.management(settings) as management:
            watched = Watched(settings, management, api)
            await watched.server.admit({"dev1": "line", "dev2": "line"})
            await watched.server.admit({"dev2": "line"})
            close = ["DELETE /api/connections/username/dev1"]
            assert await watched.round() == close
            await asyncio.sleep(0.01)
            watched.comes("dev1")
            watched.comes("dev2")
            assert await watched.round() == [], "too late to be known by the time"
            await watched.server.admit({"dev2": "line"})
            assert await watched.round() == close

    asyncio.run(work())


def test_where_connections_are_looked_up_a_late_sign_in_is_known_by_its_time(
    settings: Settings, owner: Tenant
) -> None:
    api = Server()

    async def work() -> None:
        async with (
            api.management(settings) as management,
            await db.connect(settings.database, "test", autocommit=True) as conn,
        ):
            watched = Watched(settings, management, api)
            await watched.server.admit({"dev1": "old", "dev2": "old"})
            await watched.server.admit({"dev1": "new", "dev2": "new"})
            assert len(await watched.round()) == 2
            now = asyncio.get_running_loop().time() - 10
            cut = datetime.now(UTC) - timedelta(seconds=10)
            watched.server._late = dict.fromkeys(("dev1", "dev2"), (now, cut))
            api.listed = [
                {"name": FIRST, "user": "dev1", "connected_at": int(cut.timestamp() + 1) * 1000},
                {"name": SECOND, "user": "dev2", "connected_at": int(cut.timestamp() + 8) * 1000},
            ]
            await watched.server._begin(conn)
            assert await watched.round() == ["DELETE /api/connections/username/dev1"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("queue", "policy"),
    [
        (f"mqtt-subscription-{writer_client_id('p')}qos1", "paqett"),
        (f"mqtt-subscription-{writer_client_id('p')}-{'0' * 8}qos1", "paqett"),
        ("mqtt-subscription-dev1qos1", "paqett-devices"),
        (f"mqtt-subscription-{'d' * 16}qos0", "paqett-devices"),
        ("mqtt-subscription-Zm9vYmFyYmF6cXV4MTIzNAqos1", "paqett-passing"),
        (f"mqtt-subscription-{'0' * 32}qos0", "paqett-passing"),
        ("mqtt-will-dev1", "paqett-passing"),
        ("mqtt-subscription-paqett-events-0123456789abcdefqos0", None),
    ],
)
def test_sessions_that_a_device_leaves_behind_end_and_ingests_does_not(
    queue: str, policy: str | None
) -> None:
    found = [
        name for name, one in management._POLICIES.items() if re.search(str(one["pattern"]), queue)
    ]
    assert found == ([] if policy is None else [policy]), "only one may hold"
    if policy == "paqett":
        assert "expires" not in management._POLICIES[policy]["definition"]
    elif policy is not None:
        assert management._POLICIES[policy]["definition"]["expires"] <= 86_400_000
    client = queue.removeprefix("mqtt-subscription-")[:-4]
    if policy in ("paqett-devices", "paqett-passing") and queue.startswith("mqtt-subscription"):
        assert access.is_own_client_id("dev1" if "dev1" in client else "d" * 16, client)


def test_emqx_is_asked_for_every_page_and_kicks_by_client_id(settings: Settings) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "DELETE":
            return httpx.Response(404)
        page = int(request.url.params["page"])
        assert request.url.params["conn_state"] == "connected"
        client = {
            "clientid": f"dev{page}", "username": f"dev{page}", "ip_address": "203.0.113.7",
            "connected_at": "2026-01-01T00:00:00.000+00:00",
        }  # fmt: skip
        return httpx.Response(200, json={"data": [client], "meta": {"hasnext": page < 2}})

    async def work() -> list[Open]:
        async with emqx.Clients(settings, httpx.MockTransport(answer)) as clients:
            await clients.prepare()
            await clients.close_users(["dev1"])
            return await clients.connections()

    assert asyncio.run(work()) == [
        Open("dev1", "dev1", "203.0.113.7", NOW),
        Open("dev2", "dev2", "203.0.113.7", NOW),
    ]
    assert asked == ["DELETE /api/v5/clients/dev1", *2 * ["GET /api/v5/clients"]]


def test_a_management_api_that_refuses_says_so_without_a_secret(settings: Settings) -> None:
    api = Server()
    api.status = 401

    async def work() -> None:
        async with api.management(settings) as management:
            await management.prepare()

    with pytest.raises(ManagementAway, match="PUT is answered 401"):
        asyncio.run(work())


def test_what_answers_in_the_management_apis_place_ends_nothing_of_ours(settings: Settings) -> None:
    async def work() -> None:
        page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>It works!"))
        async with Management(settings, page) as management:
            await management.connections()

    with pytest.raises(ManagementAway, match="no JSON"):
        asyncio.run(work())
