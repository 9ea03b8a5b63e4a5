"""What a device says of itself: merged whole or not at all, whatever it sends."""

import asyncio
import json
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from paqett import accounts, db, devices, migrate
from paqett.app import utc_now
from paqett.readings import attributes
from paqett.readings.attributes import About, merge, merge_attributes
from paqett.readings.rejection import Rejection
from paqett.readings.timestamps import PayloadError
from paqett.settings import Settings
from support import Tenant, in_database, make_tenant

NOTHING = About(None, None, {})


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        # the examples of RFC 7396 whose patch is an object
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_is_rfc_7396s(target: Any, patch: dict[str, Any], merged: dict[str, Any]) -> None:
    before = json.dumps(target)
    assert merge(target, patch) == merged
    assert json.dumps(target) == before


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "bad_json"), (b"{", "bad_json"), (b"[]", "bad_json"), (b"3", "bad_json"),
        (b"null", "bad_json"), (b"\xff\xfe", "bad_json"), (b'{"a": NaN}', "bad_json"),
        (b'{"a": "\\ud800"}', "bad_json"), (b'{"a":' * 100_000, "bad_json"),
        (b'{"a": 1e999}', "bad_json"), (b'{"a": ' + b"9" * 5000 + b"}", "bad_json"),
        (b'{"a": "\\u0000"}', "bad_value"), (b'{"a\\u0000": 1}', "bad_value"),
        (b'{"a": 9007199254740993}', "bad_value"), (b'{"a": 1e300}', "bad_value"),
        (b'{"a": -1e-300}', "bad_value"), (b'{"a": ' + b"9" * 400 + b"}", "bad_value"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "bad_value"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "bad_value"),
        (b'{"mac_address": "zz"}', "bad_value"), (b'{"mac_address": 3}', "bad_value"),
        (b'{"mac_address": "08:00:2b:01:02:03\\n"}', "bad_value"),
        (b'{"firmware_version": 3}', "bad_value"), (b'{"firmware_version": ""}', "bad_value"),
        (b'{"firmware_version": {"a": 1}}', "bad_value"),
        (b'{"firmware_version": "' + b"x" * 129 + b'"}', "bad_value"),
        (json.dumps({f"k{n}": n for n in range(51)}).encode(), "bad_value"),
        (json.dumps({"a": "\u00fc" * 2045}).encode(), "bad_value"),
    ],
)  # fmt: skip
def test_a_bad_patch_is_refused_with_its_code(payload: bytes, code: str) -> None:
    with pytest.raises(PayloadError) as refused:
        attributes.apply(NOTHING, attributes.read_patch(payload))
    assert refused.value.code == code
    assert refused.value.detail


def test_the_limits_themselves_are_allowed() -> None:
    keys = {f"k{n}": n for n in range(50)}
    assert attributes.apply(NOTHING, keys).attributes == keys
    fits = {"a": "ü" * 2044}  # 4,096 bytes
    assert attributes.apply(NOTHING, fits).attributes == fits
    full = About(None, "1", keys)
    patch = {"k0": None, "other": 1, "firmware_version": "x" * 128}
    assert len(attributes.apply(full, patch).attributes) == 50


class Door:
    """Merges the way ingest does, in a transaction of its own."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings, self.url = settings, url

    def send(self, account: int, device: str, payload: Any) -> Rejection | None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

        async def run() -> Rejection | None:
            connecting = db.connect(self.settings.database, "test", autocommit=True)
            async with await connecting as conn, conn.transaction():
                return await merge_attributes(conn, account, device, raw)

        return asyncio.run(run())

    def stored(self, device: str) -> tuple[Any, ...]:
        with psycopg.connect(self.url) as conn:
            row = conn.execute(
                "SELECT mac_address::text, firmware_version, attributes FROM device WHERE id = %s",
                (device,),
            ).fetchone()
        assert row is not None
        return row


@pytest.fixture
def door(settings: Settings, database_url: str) -> Door:
    return Door(settings, database_url)


def test_patches_add_up_and_columns_have_their_own_place(door: Door, owner: Tenant) -> None:
    account, device = owner.account_id, owner.devices[0]
    first = {
        "mac_address": "08002B-010203",
        "firmware_version": "1.2",
        "wifi": {"ssid": "x", "n": 1},
    }
    assert door.send(account, device, first) is None
    second = {"wifi": {"n": None, "rssi": -60.5}, "name": "Küche", "firmware_version": None}
    assert door.send(account, device, b"\xef\xbb\xbf" + json.dumps(second).encode()) is None
    assert door.stored(device) == (
        "08:00:2b:01:02:03",
        None,
        {"wifi": {"ssid": "x", "rssi": -60.5}, "name": "Küche"},
    )


def test_nothing_of_a_refused_patch_is_applied(door: Door, owner: Tenant) -> None:
    account, device = owner.account_id, owner.devices[0]
    door.send(account, device, {"a": 1})
    for patch in (
        {"b": 1, "mac_address": "zz"},
        {"mac_address": "08:00:2b:01:02:03", "b": "\0"},
        {"firmware_version": "2", **{f"k{n}": n for n in range(50)}},
    ):
        refused = door.send(account, device, patch)
        assert refused is not None
        assert (refused.code, refused.index, refused.metric) == ("bad_value", 0, None)
    assert door.stored(device) == (None, None, {"a": 1})


def test_a_device_of_another_account_is_left_alone(
    door: Door, owner: Tenant, attacker: Tenant
) -> None:
    assert door.send(attacker.account_id, owner.devices[0], {"a": 1}) is None
    assert door.send(owner.account_id, "doesnotexist", {"a": 1}) is None
    assert door.stored(owner.devices[0]) == (None, None, {})


def test_patches_at_once_all_last(door: Door, settings: Settings, owner: Tenant) -> None:
    async def one(number: int) -> None:
        payload = json.dumps({f"k{number}": number, "deep": {f"k{number}": 1}}).encode()
        connecting = db.connect(settings.database, "test", autocommit=True)
        async with await connecting as conn, conn.transaction():
            await merge_attributes(conn, owner.account_id, owner.devices[0], payload)

    async def work() -> None:
        await asyncio.gather(*(one(number) for number in range(10)))

    asyncio.run(work())
    stored = door.stored(owner.devices[0])[2]
    assert stored.pop("deep") == {f"k{n}": 1 for n in range(10)}
    assert stored == {f"k{n}": n for n in range(10)}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_payloads = st.binary(max_size=60) | st.dictionaries(
    st.sampled_from(["mac_address", "firmware_version", "a", "b"]) | st.text(), _json, max_size=4
).map(lambda patch: json.dumps(patch).encode())


@pytest.fixture(scope="module")
def payloads() -> list[bytes]:
    """What devices may send, of any kind."""
    found: list[bytes] = []

    @limits(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    @given(_payloads)
    def collect(payload: bytes) -> None:
        found.append(payload)

    collect()
    return found


def test_nothing_a_device_sends_raises_and_what_is_stored_can_be_shown(
    settings: Settings, owner: Tenant, payloads: list[bytes]
) -> None:
    device = owner.devices[0]

    async def work() -> None:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            account = await accounts.find(conn, str(owner.account_id))
            for payload in payloads:
                async with conn.transaction():
                    await merge_attributes(conn, owner.account_id, device, payload)
                shown = await devices.show(conn, account, device, utc_now())
                assert len(msgspec.json.encode(shown.attributes)) <= attributes.MAX_BYTES

    asyncio.run(work())


def test_ingests_role_writes_these_columns_and_no_others(bare_database_url: str) -> None:
    in_database(bare_database_url, migrate.migrate)
    tenant = make_tenant(bare_database_url, "owner")
    role = bare_database_url.rpartition("/")[2] + "_ingest"

    async def work(conn: db.Connection) -> None:
        await conn.execute(f'SET ROLE "{role}"')
        refused = await merge_attributes(
            conn, tenant.account_id, tenant.devices[0], b'{"firmware_version": "3", "a": 1}'
        )
        assert refused is None
        for column in ("verifier", "account_id", "connection", "tags"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await conn.execute(f"UPDATE device SET {column} = {column}")

    in_database(bare_database_url, work)
