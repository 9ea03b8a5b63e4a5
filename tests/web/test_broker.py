"""What a broker asks our API: who may sign in, and what they may do there."""

import logging

import httpx
import psycopg
import pytest

from paqett import sqlfiles
from paqett.mqtt.credentials import verifier
from support import Tenant

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
        assert await signs_in(client_id="livingroom") == "deny"
        assert await signs_in(secret="wrong") == "deny"
        assert await signs_in(secret="") == "deny"
        for user in ("", "nobody", "paqett.ingest", "' OR true --", device + "\n"):
            assert await signs_in(user=user, client_id="") == "deny", user
        assert await ask(client, "user") == "deny"

    broker.run(work)


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
            ("mqtt-will-dev1", "allow"),
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
    broker, api, device, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
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
        assert (await client.get(f"/hooks/broker/{SECRET}/user")).status_code == 405
        await ask(client, "vhost", username=device, vhost="/")

    broker.run(work)
    api.run(refused)  # where there is no secret, nobody knows it

    async def empty(client: httpx.AsyncClient) -> None:
        assert (await client.post("/hooks/broker//user")).status_code == 404

    api.run(empty)
    said = capsys.readouterr()
    lines = [*(line.getMessage() for line in caplog.records), *said.out.splitlines()]
    lines += said.err.splitlines()
    ours = [line for line in lines if "HTTP Request: " not in line]  # that is the asker's own log
    assert SECRET not in "\n".join(ours)
