"""Every refused reading is counted, some are kept as examples, and nothing breaks the ledger."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from paqett import db, devices
from paqett.accounts import Account
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import refuse_message, write_batch
from paqett.settings import Settings

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW = int(datetime.now(UTC).timestamp()) * SECOND // HOUR * HOUR  # an hour's first moment


class Door:
    """Flushes batches the way ingest does, each in a transaction of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = Directory(load_plans(settings.plans_file))

    def send(self, *messages: Incoming) -> Outcome:
        return asyncio.run(self._send(self.directory, messages))

    def race(self, *batches: Sequence[Incoming]) -> None:
        """Each batch in a transaction and a process of its own, at once."""
        plans = load_plans(self.settings.plans_file)

        async def run() -> None:
            await asyncio.gather(*(self._send(Directory(plans), batch) for batch in batches))

        asyncio.run(run())

    async def _send(self, directory: Directory, messages: Sequence[Incoming]) -> Outcome:
        connecting = db.connect(self.settings.database, "test", autocommit=True)
        async with await connecting as conn, conn.transaction():
            return await write_batch(conn, directory, messages)


@pytest.fixture
def door(settings: Settings) -> Door:
    return Door(settings)


def message(device: str, values: Any, at: int = NOW, topic: str = "telemetry") -> Incoming:
    payload = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Incoming(device, topic, payload, at)


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(statement).fetchall()  # type: ignore[call-overload]


COUNTS = "SELECT device_id, code, count(*) FROM rejection GROUP BY 1, 2 ORDER BY 1, 2"
POINTS = "SELECT code, sum(points)::bigint FROM rejection_hour GROUP BY 1 ORDER BY 1"


def test_at_most_ten_examples_stand_for_a_device_a_code_and_an_hour(
    door, database_url, owner
) -> None:
    first, second = sorted(owner.devices)
    for flush in range(6):
        at = NOW + flush * 100
        door.send(
            *(message(first, b"{broken %d" % i, at + i) for i in range(4)),
            message(first, {"ts": "soon", "t": 1}, at + 50),
            message(second, b"{", at),
        )
    assert ask(database_url, COUNTS) == [
        (first, "bad_json", 10),
        (first, "bad_ts", 6),
        (second, "bad_json", 6),
    ]
    assert ask(database_url, POINTS) == [("bad_json", 30), ("bad_ts", 6)]
    kept = ask(
        database_url,
        f"SELECT payload FROM rejection WHERE device_id = '{first}' AND code = 'bad_json'"
        " ORDER BY id",
    )
    assert [row[0] for row in kept[:6]] == [b"{broken %d" % (i % 4) for i in range(6)]
    door.send(*(message(first, b"{", NOW + HOUR + i) for i in range(30)))
    assert ask(database_url, COUNTS)[0] == (first, "bad_json", 20)  # another hour, ten more


def test_processes_that_refuse_at_once_keep_ten_together(door, database_url, owner) -> None:
    device = owner.devices[0]
    door.race(*([message(device, b"{", NOW + n * 100 + i) for i in range(8)] for n in range(4)))
    assert ask(database_url, COUNTS) == [(device, "bad_json", 10)]
    assert ask(database_url, POINTS) == [("bad_json", 32)]


def test_a_payload_is_cut_at_4_kb_and_its_size_noted(door, database_url, free_tenant) -> None:
    device = free_tenant.devices[0]
    payload = bytes(range(256)) * 200
    door.send(message(device, payload), message(device, b"{" * 4096, NOW + 1))
    assert ask(database_url, "SELECT code, payload, payload_bytes FROM rejection ORDER BY id") == [
        ("payload_too_large", payload[:4096], 51_200),
        ("bad_json", b"{" * 4096, 4096),
    ]


def test_an_example_says_what_was_wrong_and_when(door, database_url, owner) -> None:
    device = owner.devices[0]
    sent = message(device, {"a": {"b": [1]}, "good": 1}, NOW + 5)
    assert door.send(sent).stored == 1
    assert ask(
        database_url,
        "SELECT account_id, device_id, code, topic, metric, detail, payload, payload_bytes, time,"
        " hour FROM rejection",
    ) == [
        (
            owner.account_id,
            device,
            "bad_value",
            "telemetry",
            "a.b",
            "an array is not a value",
            sent.payload,
            len(sent.payload),
            datetime.fromtimestamp((NOW + 5) / 1e6, UTC),
            datetime.fromtimestamp(NOW / 1e6, UTC),
        )
    ]


def test_every_refused_point_is_counted_by_device_code_and_hour(
    door, database_url, free_tenant, owner
) -> None:
    device, other = free_tenant.devices[0], owner.devices[0]
    outcome = door.send(
        message(device, {"t": [], "u": 2**60, "v": 1}),
        message(device, {"ts": "soon", "t": 1, "u": 2, "v": None}, NOW + 1),
        message(device, [{"t": 1}] * 501, NOW + 2),
        message(device, {"t": 1}, NOW + 600, "commands"),
        message(device, {f"m{i}": i for i in range(30)}, NOW + 601),
        message(other, b"{", NOW),
        message(other, b"{", NOW + HOUR),
    )
    expected = {
        "bad_value": 2,
        "bad_ts": 2,
        "too_many_items": 501,
        "bad_topic": 1,
        "metric_limit": 11,
        "bad_json": 2,
    }
    assert outcome.rejected == expected
    assert dict(ask(database_url, POINTS)) == expected
    hours = ask(
        database_url,
        f"SELECT hour, points FROM rejection_hour WHERE device_id = '{other}' ORDER BY 1",
    )
    assert [(row[0].timestamp() * 1e6, row[1]) for row in hours] == [(NOW, 1), (NOW + HOUR, 1)]


def test_refusals_tell_the_limit_and_when_it_holds_no_longer(door, free_tenant) -> None:
    device = free_tenant.devices[0]
    refusals = door.send(
        message(device, b"{" * 40_000),
        message(device, {f"m{i}": i for i in range(23)}, NOW + 1),
        message(device, b"{", NOW + 2),
    ).refusals
    told = {code: (r.points, r.limit, r.resets_us) for (_, code), r in refusals.items()}
    assert told == {
        "payload_too_large": (1, 32_768, None),
        "metric_limit": (3, 20, None),
        "bad_json": (1, None, None),
    }


def test_refusals_of_a_batch_across_the_hour_are_told_together(door, owner) -> None:
    device = owner.devices[0]
    sent = [message(device, b"{", NOW - 3 + i) for i in range(5)]
    refused = door.send(*sent).refusals[device, "bad_json"]
    assert (refused.points, refused.first_us, refused.last_us) == (5, NOW - 3, NOW + 1)


HOSTILE = [
    ("telemetry", b"\0\0\0"),
    ("telemetry", b"\xff\xfe\xfd"),
    ("telemetry", b'{"a\\u0000b": 1, "\\ud800": 2, "\\udfff\\u202e": 3}'),
    ("telemetry", b'{"t": "\\ud800", "u": "\\u0000", "v": [1]}'),
    ("telemetry", b'{"ts": "\\ud800\\u0000", "t": 1}'),
    ("telemetry/a\0b", b"1"),
    ("telemetry/\ud800", b"1"),
    ("telemetry/" + "x" * 60_000, b"1"),
    ("telemetry/a//b", b"1"),
    ("telemetry/", b"1"),
    ("\0", b"1"),
    ("\ud800\udfff", b"\0"),
    ("x" * 65_000, b"1"),
    ("attributes", b"\0"),
    ("attributes", b'{"mac_address": "\\u0000"}'),
    ("attributes", b'{"k": "\\ud800"}'),
    ("telemetry", b"[" * 100_000),
    ("telemetry", b'{"t":' * 4000 + b"1" + b"}" * 4000),
    ("telemetry", b'{"' + b"k" * 200_000 + b'": 1}'),
]


@pytest.mark.parametrize("together", [True, False])
def test_whatever_is_sent_can_be_kept_as_an_example(door, database_url, owner, together) -> None:
    device = owner.devices[0]
    sent = [message(device, payload, NOW + i, topic) for i, (topic, payload) in enumerate(HOSTILE)]
    outcomes = [door.send(*sent)] if together else [door.send(one) for one in sent]
    refused = sum(outcome.rejected.total() for outcome in outcomes)
    assert refused >= len(HOSTILE)
    assert sum(points for _, points in ask(database_url, POINTS)) == refused
    assert sum(outcome.stored for outcome in outcomes) == 0
    longest = "SELECT max(length(topic)), max(length(metric)), max(length(payload)) FROM rejection"
    assert ask(database_url, longest)[0][0] <= 256
    assert ask(database_url, longest)[0][1] <= 128
    assert ask(database_url, longest)[0][2] <= 4096


def test_hostile_messages_are_refused_alone_too(door, database_url, owner) -> None:
    """What the writer does with a message that the database would not take."""
    device = owner.devices[0]

    async def run() -> int:
        connecting = db.connect(door.settings.database, "test", autocommit=True)
        refused = 0
        async with await connecting as conn:
            for topic, payload in HOSTILE:
                async with conn.transaction():
                    sent = message(device, payload, NOW, topic)
                    outcome = await refuse_message(conn, door.directory, sent)
                    refused += outcome.rejected["bad_value"]
            async with conn.transaction():
                outcome = await refuse_message(conn, door.directory, message("nobody", b"{"))
                assert (outcome.unknown, outcome.rejected) == (1, {})
        return refused

    assert asyncio.run(run()) == len(HOSTILE)
    assert ask(database_url, POINTS) == [("bad_value", len(HOSTILE))]
    assert ask(database_url, COUNTS) == [(device, "bad_value", 10)]


def test_a_deleted_device_takes_its_examples_with_it(door, database_url, owner) -> None:
    first, second = owner.devices
    door.send(message(first, b"{"), message(second, b"{"))
    account = Account(
        owner.account_id, "", "own", "own", None, datetime.now(UTC), timedelta(days=7)
    )

    async def run() -> None:
        async with await db.connect(door.settings.database, "test") as conn:
            await devices.delete(conn, account, first)

    asyncio.run(run())
    assert ask(database_url, COUNTS) == [(second, "bad_json", 1)]


def test_a_deleted_account_takes_its_examples_and_counters_with_it(
    door, database_url, owner, attacker
) -> None:
    door.send(message(owner.devices[0], b"{"), message(attacker.devices[0], b"{"))
    with psycopg.connect(database_url) as conn:
        conn.execute("DELETE FROM account WHERE id = %s", (owner.account_id,))
    assert ask(database_url, "SELECT DISTINCT account_id FROM rejection") == [
        (attacker.account_id,)
    ]
    assert ask(database_url, "SELECT DISTINCT account_id FROM rejection_hour") == [
        (attacker.account_id,)
    ]
