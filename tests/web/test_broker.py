"""What a broker asks our API: who may sign in, and what they may do there."""

import asyncio
import logging
import time

import httpx
import msgspec
import psycopg
import pytest

from paqett import app, sqlfiles
from paqett.mqtt.credentials import verifier
from paqett.web import broker as asked_by_brokers
from paqett.web.server import create_app
from ports import free_port
from support import Tenant, with_url

SECRET = "b" * 40
JSON = {"accept": "application/json"}


@pytest.fixture
def device(database_url: str, owner: Tenant) -> str:
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "UPDATE device SET verifier = %s WHERE id = %s", (verifier("right"), owner.devices[0])
        )
    return owner.devices[0]


@pytest.fixture
def broker(make_api):
    return make_api(PAQETT_BROKER__AUTH_SECRET=SECRET)


async def ask(client: httpx.AsyncClient, what: str, **fields: str) -> str:
    answer = await client.post(f"/hooks/broker/{SECRET}/{what}", data=fields)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_device_signs_in_with_its_secret_and_a_client_id_of_its_own(broker, device) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async def signs_in(secret: str = "right", client_id: str = device, user: str = device):
            return await ask(
                client, "user", username=user, password=secret, client_id=client_id, vhost="/"
            )

        assert await signs_in() == "allow"
        assert await signs_in(client_id="") == "allow"
        assert await signs_in(client_id="Zm9vYmFyYmF6cXV4MTIzNA") == "allow"
        for name in ("livingroom", "esp32-livingroom-temp1", "LivingRoom-Temperature", "0" * 22):
            assert await signs_in(client_id=name) == "deny", "somebody else may think of it too"
        assert await signs_in(client_id="0123456789abcdef" * 2) == "allow"
        assert await signs_in(secret="wrong") == "deny"
        assert await signs_in(secret="") == "deny"
        for user in ("", "nobody", "paqett.ingest", "' OR true --", device + "\n"):
            assert await signs_in(user=user, client_id="") == "deny", user
        assert await ask(client, "user") == "deny"
        asked = {"username": device, "password": "right", "vhost": "/"}
        assert await ask(client, "user", **asked) == "deny", "not over MQTT"

    broker.run(work)


def test_a_device_may_make_up_few_client_ids_a_minute_whose_sessions_it_leaves_behind(
    broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async def begins(client_id: str, device: str = "dev1") -> str:
            name = f"mqtt-subscription-{client_id}qos1"
            return await ask(
                client, "resource", username=device, vhost="/", resource="queue", name=name,
                permission="configure",
            )  # fmt: skip

        names = [f"aB{number:018}xA" for number in range(11)]
        assert [await begins(name) for name in names] == ["allow"] * 10 + ["deny"]
        assert await begins(names[0]) == "allow", "one of them again"
        assert await begins("dev1") == "allow", "its own id has one session"
        assert await begins(names[10], "dev2") == "allow", "another device's are its own"
        monkeypatch.setattr(asked_by_brokers, "_SESSIONS_IN_S", 0.0)
        assert await begins(names[10]) == "allow"

    broker.run(work)


def test_whoever_fills_the_record_of_sessions_only_has_the_oldest_forgotten(
    broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_by_brokers, "_MOST_DEVICES", 2)

    async def work() -> None:
        async with app.services(broker.settings, "test") as services:
            judge = asked_by_brokers.Judge(services)
            for device in ("a", "b", "a", "c"):
                judge._has_room(device, "0" * 22)
            assert list(judge._begun) == ["a", "c"]

    asyncio.run(work())


def test_a_database_that_is_away_refuses_at_once_and_never_allows(
    broker, device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_by_brokers, "_PATIENCE_S", 0.3)
    away = with_url(
        f"postgresql://nobody@127.0.0.1:{free_port(58000)}/none", PAQETT_BROKER__AUTH_SECRET=SECRET
    )
    asked = {"username": device, "password": "right", "client_id": device, "vhost": "/"}

    async def work(client: httpx.AsyncClient) -> None:
        async with app.services(away, "test") as services:
            transport = httpx.ASGITransport(create_app(services))
            began = time.monotonic()
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                url = f"/hooks/broker/{SECRET}/user"
                answers = await asyncio.gather(*(client.post(url, data=asked) for _ in range(60)))
            assert {answer.status_code for answer in answers} == {503}
            assert all("allow" not in answer.text for answer in answers)
            assert time.monotonic() - began < 3, "not each in its turn"

    broker.run(work)


def test_a_storm_of_sign_ins_leaves_people_connections(broker, device) -> None:
    asked = {"username": device, "password": "right", "client_id": device, "vhost": "/"}

    async def work() -> None:
        database = msgspec.structs.replace(broker.settings.database, pool_size=2)
        settings = msgspec.structs.replace(broker.settings, database=database)
        async with app.services(settings, "test") as services:
            application = create_app(services)
            held: list[int] = []
            real = application.state.services.pool.connection

            def counted(*arguments, **more):
                held.append(application.state.broker._room._value)
                return real(*arguments, **more)

            services.pool.connection = counted
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                url = f"/hooks/broker/{SECRET}/user"
                answers = await asyncio.gather(*(client.post(url, data=asked) for _ in range(20)))
            assert {answer.text for answer in answers} == {"allow"}
            assert len(held) == 20
            assert set(held) == {0}, "of two connections one at a time"

    asyncio.run(work())


@pytest.mark.parametrize(
    "closed",
    [
        "UPDATE account SET disabled_at = now()",
        "UPDATE account SET closing_at = now()",
        "UPDATE device SET paused_at = now()",
        "DELETE FROM device",
    ],
)
def test_who_is_not_in_the_password_file_does_not_sign_in(
    broker, device, database_url, closed: str
) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute(closed)
        listed = conn.execute(sqlfiles.query("unscoped_device_verifiers")).fetchall()
        assert device not in {row[0] for row in listed}, "both brokers have the same rules"

    async def work(client: httpx.AsyncClient) -> None:
        asked = {"username": device, "password": "right", "client_id": device}
        assert await ask(client, "user", **asked) == "deny"

    broker.run(work)


def test_a_device_uses_its_own_queues_and_topics_alone(broker) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async def may(what: str, **asked: str) -> str:
            return await ask(client, what, username="dev1", vhost="/", **asked)

        assert await may("vhost", ip="127.0.0.1") == "allow"
        assert await ask(client, "vhost", username="dev1", vhost="other") == "deny"
        for name, permission, told in (
            ("amq.topic", "write", "allow"),
            ("amq.topic", "read", "allow"),
            ("amq.topic", "configure", "deny"),
            ("amq.rabbitmq.event", "read", "deny"),
            ("", "write", "deny"),
        ):
            asked = {"resource": "exchange", "name": name, "permission": permission}
            assert await may("resource", **asked) == told, asked
        for name, told in (
            ("mqtt-subscription-dev1qos1", "allow"),
            ("mqtt-will-dev1", "deny"),
            ("mqtt-subscription-dev1qos1qos1", "deny"),
            ("mqtt-subscription-dev2qos1", "deny"),
            ("mqtt-subscription-paqett-ingest-0qos1", "deny"),
            ("mqtt-subscription-qos1", "deny"),
            ("anything", "deny"),
        ):
            asked = {"resource": "queue", "name": name, "permission": "configure"}
            assert await may("resource", **asked) == told, asked
        for key, permission, told in (
            ("paqett.v1.dev1.telemetry.a", "write", "allow"),
            ("paqett.v1.dev1.errors", "read", "allow"),
            ("paqett.v1.dev1.telemetry", "read", "deny"),
            ("paqett.v1.dev2.telemetry", "write", "deny"),
            ("paqett.v1.*.errors", "read", "deny"),
            ("paqett/v1/dev1/errors", "read", "deny"),
            ("#", "read", "deny"),
            ("paqett.v1.dev1.#", "read", "deny"),
            ("paqett.v1.dev1.errors\n", "read", "deny"),
            ("paqett.v1.dev1.errors", "configure", "deny"),
            ("paqett.v1.dev1/../dev2.telemetry", "write", "deny"),
            ("paqett.v1.dev1%2F..%2Fdev2.telemetry", "write", "deny"),
            ("paqett.v1.\uff44ev1.telemetry", "write", "deny"),
            ("$share.g.paqett.v1.dev1.errors", "read", "deny"),
            ("$SYS.broker.log", "read", "deny"),
            ("connection.created", "read", "deny"),
            ("connection.created", "write", "deny"),
        ):
            asked = {"resource": "topic", "name": "amq.topic", "permission": permission}
            assert await may("topic", routing_key=key, **asked) == told, (key, permission)
        assert await ask(client, "topic") == "deny"

    broker.run(work)


def test_emqx_asks_with_topics_and_is_answered_in_json(broker, device) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async def told(what: str, **fields: str) -> str:
            url = f"/hooks/broker/{SECRET}/{what}"
            answer = await client.post(url, data={"username": device, **fields}, headers=JSON)
            return str(answer.json()["result"])

        assert await told("user", password="right") == "allow"
        assert await told("user", password="wrong") == "deny"
        own = f"paqett/v1/{device}"
        assert await told("topic", topic=f"{own}/telemetry", action="publish") == "allow"
        assert await told("topic", topic=f"{own}/errors", action="subscribe") == "allow"
        assert await told("topic", topic=f"{own}/errors", action="all") == "deny"
        assert await told("topic", topic="paqett/v1/x/telemetry", action="publish") == "deny"

    broker.run(work)


def test_strangers_find_nothing_there_and_the_secret_is_not_logged(
    broker,
    api,
    make_api,
    device,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)

    async def refused(client: httpx.AsyncClient) -> None:
        for secret in (SECRET[:-1], "b" * 41, "%00", "é"):
            answer = await client.post(f"/hooks/broker/{secret}/user", data={"username": device})
            assert answer.status_code == 404, secret

    async def work(client: httpx.AsyncClient) -> None:
        await refused(client)
        assert (await client.post(f"/hooks/broker/{SECRET}/else")).status_code == 404
        body = await client.post(f"/hooks/broker/{SECRET}/user", json={"username": device})
        assert body.status_code == 415
        twice = f"username=dev2&username={device}&vhost=/"
        form = {"content-type": "application/x-www-form-urlencoded"}
        body = await client.post(f"/hooks/broker/{SECRET}/vhost", content=twice, headers=form)
        assert body.status_code == 422, "a name is not to be hidden behind another"
        assert (await client.get(f"/hooks/broker/{SECRET}/user")).status_code == 405
        await ask(client, "vhost", username=device, vhost="/")

    broker.run(work)
    api.run(refused)  # where there is no secret, nobody knows it

    async def short(client: httpx.AsyncClient) -> None:
        asked = {"username": device, "vhost": "/"}
        assert (await client.post("/hooks/broker/guessed/vhost", data=asked)).status_code == 404

    make_api(PAQETT_BROKER__AUTH_SECRET="guessed").run(short)

    async def empty(client: httpx.AsyncClient) -> None:
        assert (await client.post("/hooks/broker//user")).status_code == 404

    api.run(empty)
    said = capsys.readouterr()
    lines = [*(line.getMessage() for line in caplog.records), *said.out.splitlines()]
    lines += said.err.splitlines()
    ours = [line for line in lines if "HTTP Request: " not in line]  # that is the asker's own log
    assert SECRET not in "\n".join(ours)
