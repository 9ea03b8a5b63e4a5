"""What no well-meaning device sends, and clocks that are wrong: nothing breaks, all is counted."""

import asyncio
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paqett import db
from paqett.plans import load_plans
from paqett.readings.decode import decode
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import write_batch
from paqett.settings import Settings
from support import Tenant

NOW_US = int(datetime.now(UTC).timestamp() * 1e6)
AHEAD_US = 600_000_000
DAY_US = 86_400_000_000
BATCH = 2000
RETENTION_US = {"own": 365 * DAY_US, "free": 7 * DAY_US}


def write(settings: Settings, batches: Iterator[list[Incoming]] | list[list[Incoming]]) -> Outcome:
    """Each batch in a transaction, as ingest does; the sum of the outcomes."""

    async def run() -> Outcome:
        total = Outcome()
        directory = Directory(load_plans(settings.plans_file))
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            for batch in batches:
                async with conn.transaction():
                    outcome = await write_batch(conn, directory, batch)
                total.stored += outcome.stored
                total.duplicates += outcome.duplicates
                total.unknown += outcome.unknown
                total.rejected += outcome.rejected
        return total

    return asyncio.run(run())


def in_batches(messages: Sequence[Incoming]) -> list[list[Incoming]]:
    return [list(messages[at : at + BATCH]) for at in range(0, len(messages), BATCH)]


def one(url: str, statement: str) -> Any:
    with psycopg.connect(url) as conn:
        row = conn.execute(statement).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0]


def counted(url: str) -> Counter[str]:
    """Points refused, by code, as the database has them."""
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT code, sum(points)::int FROM rejection_hour GROUP BY 1")
        return Counter(dict(rows.fetchall()))


STORED = "SELECT (SELECT count(*) FROM telemetry_own) + (SELECT count(*) FROM telemetry_own_text)"

# Every one of these is refused, and counts one point: its code, topic and payload.
POISON: list[tuple[str, str, bytes]] = [
    *(
        ("bad_json", "telemetry", payload)
        for payload in (
            b"", b" ", b"\0", b"{", b"}", b"null", b"true", b"7", b'"text"', b"NaN", b"\xff\xfe",
            b"\xef\xbb\xbf", b'{"p": 1', b'{"p": 1}}', b'{"p": 1}\0', b'{"p": }', b'{"p": nul}',
            b"{'p': 1}", b"[1]", b"[[]]", b"[" * 5_000, b'{"p":' * 5_000, b'{"p":' + b"[" * 100_000,
            '{"p": 1}'.encode("utf-16"), b'{"p": "\xc3\x28"}', b'{"p": "\xed\xa0\x80"}',
            b"\x1f\x8b\x08\0\0\0\0\0", b"\x16\x03\x01\x02\0\x01", b"' OR 1=1; --",
        )
    ),
    *(
        ("bad_value", "telemetry", payload)
        for payload in (
            b'{"p": 1e999}', b'{"p": -1e999}', b'{"p": 9007199254740993}',
            b'{"p": ' + b"9" * 6_000 + b"}", b'{"p": "\\u0000"}', b'{"p": "a\\ud800"}',
            b'{"p": "' + b"x" * 513 + b'"}', b'{"p": "' + "é".encode() * 257 + b'"}',
            b'{"p": [1]}', b'{"p": []}', b'{"a":{"b":{"c":{"d":{"e":1}}}}}',
        )
    ),
    ("bad_value", "telemetry/p", b"[1, 2]"),
    ("bad_value", "telemetry/p", b"inf"),
    ("bad_value", "telemetry/p", b"x" * 513),
    *(
        ("bad_metric_name", "telemetry", payload)
        for payload in (
            b'{"": 1}', b'{"\\u0000": 1}', b'{"\\ud800": 1}', b'{"a\\u0007b": 1}',
            b'{"' + b"x" * 129 + b'": 1}', '{"\u202e": 1}'.encode(),
        )
    ),
    ("bad_metric_name", "telemetry/" + "x" * 129, b"1"),
    ("bad_metric_name", "telemetry/\u2028", b"1"),
    *(
        ("bad_ts", "telemetry", payload)
        for payload in (
            b'{"ts": "never", "p": 1}', b'{"ts": true, "p": 1}', b'{"ts": [], "p": 1}',
            b'{"ts": 1e999, "p": 1}', b'{"ts": "2023-02-29T00:00:00Z", "p": 1}',
        )
    ),
    ("clock_not_set", "telemetry", b'{"ts": 0, "p": 1}'),
    ("clock_not_set", "telemetry", b'{"ts": -1' + b"0" * 30 + b', "p": 1}'),
    ("ts_too_old", "telemetry", b'{"ts": "2001-01-01T00:00:00Z", "p": 1}'),
    ("ts_in_future", "telemetry", b'{"ts": "2099-01-01T00:00:00Z", "p": 1}'),
    ("ts_in_future", "telemetry", b'{"ts": 1' + b"0" * 30 + b', "p": 1}'),
    *(
        ("bad_topic", topic, b'{"p": 1}')
        for topic in (
            "", "/", "telemetry/", "telemetry//", "telemetry/a//b", "telemetry/a/b/c/d/e/f",
            "telemetryx", "Telemetry", "errors", "$SYS", "\u0000",
        )
    ),
    ("too_many_items", "telemetry", b"[" + b",".join([b"{}"] * 501) + b"]"),
    ("payload_too_large", "telemetry", b'{"p": "' + b"x" * 300_000 + b'"}'),
    ("type_conflict", "telemetry", b'{"good": "text"}'),
    ("type_conflict", "telemetry", b'{"good": true}'),
]  # fmt: skip


def test_one_poison_message_of_every_kind_costs_only_itself(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    device = owner.devices[0]
    messages = [
        Incoming(device, "telemetry", b'{"ts":%d,"good":%d}' % (NOW_US + n, n), NOW_US + n)
        for n in range(5_000)
    ]
    for number, (_, topic, payload) in enumerate(POISON):
        messages.insert(50 + 40 * number, Incoming(device, topic, payload, NOW_US))
    for stranger in ("nobody", "x" * 300, "", "../..", "%s", "ünïcode"):
        messages.insert(700, Incoming(stranger, "telemetry", b'{"good": 1}', NOW_US))
    outcome = write(settings, in_batches(messages))
    expected = Counter(code for code, *_ in POISON)
    assert outcome.rejected == expected
    assert counted(database_url) == expected
    assert (outcome.stored, outcome.unknown) == (5_000, 6)
    assert one(database_url, "SELECT count(*) FROM telemetry_own") == 5_000
    assert one(database_url, "SELECT sum(value) FROM telemetry_own") == sum(range(5_000))


# Valid messages, to be spoilt.
_SEEDS = [
    b'{"temperature":21.5,"humidity":40,"on":true,"mode":"auto"}',
    b'{"ts":%d,"values":{"temperature":21.5,"battery":3.31}}' % NOW_US,
    b'[{"ts":%d,"v":1},{"ts":%d,"v":2},{"v":3}]' % (NOW_US, NOW_US + 1),
    b'{"ts":"%s","room":{"kitchen":{"t":20.25,"lamp":"OFF"}}}'
    % datetime.now(UTC).isoformat().encode(),
    '{"texte":"é ü 漢字 🙂","état":"nan","vide":null}'.encode(),
    b"21.5",
    b"ON",
    b'"text"',
]
_TOPICS = ["telemetry"] * 6 + [
    "telemetry/room/t", "telemetry/a/b/c/d/e", "telemetry/a/b/c/d/e/f", "telemetry/", "attributes",
    "x", "telemetry/é", "telemetry/" + "n" * 200,
]  # fmt: skip
_FRAGMENTS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\0", b"\xff",
    b"\xc3", b"null", b"true", b"1e999", b"-0", b"1e-400", b"9" * 400, b"NaN", b'"ts":', b'"ts":0,',
    b'"values":{', b'"":1,', b"\xef\xbb\xbf", "🙂".encode(), "\u202e".encode(), b"{" * 300,
    b"[" * 3_000, b'{"a":' * 500, b" " * 1_000,
]  # fmt: skip


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_FRAGMENTS) + data[at:]


def _flip(dice: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _splice(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(_SEEDS)
    return _cut(dice, data) + other[dice.randrange(len(other)) :]


_WRONG = [
    [], {}, None, True, -1, 2**53, 2**63, -(10**400), 1e308, 5e-324, "", "x" * 600, "é" * 300, "\0",
    "\ud800", "ON", "nan", [[1]], {"a": {"b": []}}, {"a": {"b": {"c": {"d": {"e": 1}}}}},
]  # fmt: skip
_NAMES = ["ts", "values", "temperature", "v", "", "a/b", "a.b", "n" * 128, "n" * 129, "\0", "é"]


def _retype(dice: random.Random, data: bytes) -> bytes:
    """Another value, mostly of another type, for a member there or not."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(message, dict):
        return json.dumps([message, {"v": dice.choice(_WRONG)}]).encode()
    message[dice.choice([*message, *_NAMES])] = dice.choice(_WRONG)
    return json.dumps(message, ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass")


def _noise(dice: random.Random, _: bytes) -> bytes:
    return dice.randbytes(dice.randrange(200))


def spoilt(seed: int) -> Iterator[tuple[str, bytes]]:
    """For ever: a topic and a payload, most of them nearly right; the same for the same seed."""
    dice = random.Random(seed)
    ways = [_cut, _insert, _flip, _splice, _noise, *[_retype] * 8, *[lambda _, data: data] * 3]
    while True:
        payload = dice.choice(_SEEDS)
        for _ in range(dice.randrange(1, 4)):
            payload = dice.choice(ways)(dice, payload)
        yield dice.choice(_TOPICS), payload


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def survives(settings: Settings, url: str, devices: list[str], messages: int, seed: int) -> None:
    """All of them decoded and written: no exception, no stall, no growth, and all in the books."""
    source = islice(spoilt(seed), messages)
    slowest_s, sizes = 0.0, []

    def batches() -> Iterator[list[Incoming]]:
        nonlocal slowest_s
        number = 0
        while part := list(islice(source, 1_000)):
            batch = []
            for topic, payload in part:
                number += 1
                received_us = NOW_US + 1_000 * number
                for path in ("", "a/b"):
                    decode(
                        payload, received_us=received_us, oldest_us=received_us - 365 * DAY_US,
                        newest_us=received_us + AHEAD_US, path=path,
                    )  # fmt: skip
                batch.append(Incoming(devices[number % 2], topic, payload, received_us))
            began = time.monotonic()
            yield batch
            slowest_s = max(slowest_s, time.monotonic() - began)
            sizes.append(resident_bytes())

    outcome = write(settings, batches())
    assert outcome.stored > messages / 20, "enough of them are good"
    assert sum(outcome.rejected.values()) > messages / 5, "and enough are not"
    assert one(url, STORED) == outcome.stored
    assert counted(url) == outcome.rejected
    assert slowest_s < 20, "a thousand messages"
    warm = sizes[len(sizes) // 2]
    assert sizes[-1] - warm < 32 * 2**20, "memory is flat once warm"


def test_five_thousand_spoilt_messages_break_nothing(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    survives(settings, database_url, owner.devices, 5_000, seed=20_261_124)


@pytest.mark.prove
def test_a_hundred_thousand_spoilt_messages_break_nothing(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)  # noqa: T201 - pytest shows it where the test fails
    survives(settings, database_url, owner.devices, 100_000, seed)


def test_one_message_over_every_day_of_the_retention_does_not_stall_the_others(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    history = [{"ts": NOW_US - day * DAY_US, "v": day, "s": "x"} for day in range(365)]
    payload = json.dumps(history).encode()
    began = time.monotonic()
    outcome = write(settings, [[Incoming(owner.devices[0], "telemetry", payload, NOW_US)]])
    assert outcome.stored == 730
    assert time.monotonic() - began < 30, "chunks are made once"
    began = time.monotonic()
    again = [Incoming(owner.devices[1], "telemetry", payload, NOW_US)]
    assert write(settings, [again]).stored == 730
    assert time.monotonic() - began < 10


def us(text: str) -> int:
    """A moment of UTC in µs since 1970."""
    moment = datetime.fromisoformat(f"{text}+00:00")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def stamped(settings: Settings, device: str, ts: Any, received_us: int) -> Outcome:
    payload = json.dumps({"ts": ts, "v": 1}).encode()
    return write(settings, [[Incoming(device, "telemetry", payload, received_us)]])


def times(url: str, table: str = "telemetry_own") -> list[int]:
    """Stored times in µs."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            f"SELECT (extract(epoch FROM time) * 1000000)::bigint FROM {table} ORDER BY 1"  # type: ignore[arg-type]
        ).fetchall()
    return [at for (at,) in rows]


def test_one_moment_in_every_unit_and_spelling_is_one_reading(
    settings: Settings, database_url: str, owner: Tenant
) -> None:
    second = NOW_US // 1_000_000
    moment = datetime.fromtimestamp(second, UTC)
    units = [second, second * 10**3, second * 10**6, second * 10**9, float(second)]
    spellings = [
        *units, *map(str, units), moment.isoformat(),
        moment.isoformat().replace("+00:00", "Z").replace("T", " ").lower(),
        (moment + timedelta(hours=5, minutes=45)).isoformat().replace("+00:00", "+05:45"),
        (moment - timedelta(hours=11)).isoformat().replace("+00:00", "-11:00"),
    ]  # fmt: skip
    batch = [
        Incoming(owner.devices[0], "telemetry", json.dumps({"ts": ts, "v": 1}).encode(), NOW_US + n)
        for n, ts in enumerate(spellings)
    ]
    outcome = write(settings, [batch])
    assert (outcome.stored, outcome.duplicates) == (1, len(spellings) - 1)
    assert times(database_url) == [second * 10**6]


@pytest.mark.parametrize(
    ("ts", "code"),
    [
        (0, "clock_not_set"),
        (1, "clock_not_set"),
        ("1970-01-01T00:00:00Z", "clock_not_set"),
        ("1999-12-31T23:59:60Z", "clock_not_set"),
        ("2000-12-31T23:59:59.999999Z", "clock_not_set"),
        ("2099-12-31T23:59:59Z", "ts_in_future"),
        (4_102_444_799, "ts_in_future"),
        (4_102_444_799_000, "ts_in_future"),
        ("9999-12-31T23:59:59Z", "ts_in_future"),
    ],
)
def test_a_wrong_clock_is_refused_with_its_code(
    settings: Settings, database_url: str, owner: Tenant, ts: Any, code: str
) -> None:
    assert stamped(settings, owner.devices[0], ts, NOW_US).rejected == {code: 1}
    assert counted(database_url) == {code: 1}
    assert times(database_url) == []


@pytest.mark.parametrize(
    ("ts", "received", "kept"),
    [
        ("2028-02-29T12:00:00.000001Z", "2028-02-29T12:00:05", "2028-02-29T12:00:00.000001"),
        ("2028-02-29T23:59:59.999999Z", "2028-03-01T00:00:00", "2028-02-29T23:59:59.999999"),
        ("2028-03-01T00:30:00+01:00", "2028-03-01T00:00:00", "2028-02-29T23:30:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:05", "2017-01-01T00:00:00"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:05", "2017-01-01T00:00:00.250000"),
        ("2099-12-31T23:59:59Z", "2099-12-31T23:59:59", "2099-12-31T23:59:59"),
        (None, "2028-02-29T23:59:59.999999", "2028-02-29T23:59:59.999999"),
        (None, "2099-12-31T23:59:59.999999", "2099-12-31T23:59:59.999999"),
    ],
)
def test_leap_days_leap_seconds_and_far_years_are_stored_to_the_microsecond(
    settings: Settings, database_url: str, owner: Tenant, ts: str | None, received: str, kept: str
) -> None:
    assert stamped(settings, owner.devices[0], ts, us(received)).stored == 1
    assert times(database_url) == [us(kept)]


@pytest.mark.parametrize("plan", ["own", "free"])
def test_the_edges_of_the_window_are_inside_it_and_a_microsecond_further_is_not(
    settings: Settings, database_url: str, owner: Tenant, free_tenant: Tenant, plan: str
) -> None:
    device = (owner if plan == "own" else free_tenant).devices[0]
    oldest, newest = NOW_US - RETENTION_US[plan], NOW_US + AHEAD_US
    items = [{"ts": ts, "v": 1} for ts in (oldest - 1, oldest, newest, newest + 1)]
    payload = json.dumps(items).encode()
    outcome = write(settings, [[Incoming(device, "telemetry", payload, NOW_US)]])
    assert outcome.rejected == {"ts_too_old": 1, "ts_in_future": 1}
    assert times(database_url, f"telemetry_{plan}") == [oldest, newest]
