"""Usage and refusals: what a key may see of them, and cursors nobody gave out."""

from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest

from support import Tenant

SENT = "/api/v1/devices/{}/telemetry"
USAGE = "/api/v1/usage"
REJECTIONS = "/api/v1/usage/rejections"


async def asker(api: Any, tenant: Tenant, devices: list[str] | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {await api.key(tenant.account_id, devices=devices)}"}


async def fill(client: httpx.AsyncClient, tenant: Tenant, headers: dict[str, str]) -> None:
    """The second device sends ten times as much as the first, and more of it is refused."""
    for device, times in zip(tenant.devices, (1, 10), strict=True):
        for number in range(times):
            body = [{"t": number}, {"ts": "-", "t": 1}]
            await client.post(SENT.format(device), json=body, headers=headers)
    await client.post(SENT.format(tenant.devices[1]), content=b"{", headers=headers)


def yesterday(url: str) -> None:
    """As if all of it had been the day before."""
    with psycopg.connect(url) as conn:
        for table in ("usage_hour", "rejection_hour"):
            conn.execute(f"UPDATE {table} SET hour = hour - interval '1 day'")


def test_a_key_for_one_device_sees_that_device_alone(api, free_tenant, database_url) -> None:
    mine, other = free_tenant.devices

    async def work(client: httpx.AsyncClient) -> None:
        everything = await asker(api, free_tenant)
        await fill(client, free_tenant, everything)
        limited = await asker(api, free_tenant, [mine])
        whole = (await client.get(USAGE, headers=everything)).json()
        assert sorted(row["device"] for row in whole["devices"]) == sorted([mine, other])
        answer = await client.get(USAGE, headers=limited)
        usage = answer.json()
        assert [row["device"] for row in usage["devices"]] == [mine]
        assert (usage["today"]["messages"], usage["today"]["points"]) == (1, 1)
        assert usage["today"]["rejected"] == {"bad_ts": 1}
        assert usage["quota"]["used"] == whole["quota"]["used"] == 11  # the account's, as it counts
        assert other not in answer.text
        for asked in ({}, {"device": mine}, {"code": "bad_ts"}):
            answer = await client.get(REJECTIONS, params=asked, headers=limited)
            found = [(row["device"], row["code"]) for row in answer.json()["items"]]
            assert found == [(mine, "bad_ts")]
            assert other not in answer.text
        for asked in ({"code": "bad_json"}, {"limit": 1, "cursor": _cursor(other)}):
            answer = await client.get(REJECTIONS, params=asked, headers=limited)
            assert other not in answer.text
        foreign = await client.get(REJECTIONS, params={"device": other}, headers=limited)
        assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found")
        missing = await client.get(REJECTIONS, params={"device": "nobody"}, headers=limited)
        assert missing.json()["detail"].replace("nobody", other) == foreign.json()["detail"]
        yesterday(database_url)
        days = (await client.get(USAGE, headers=limited)).json()["days"]
        assert [(day["messages"], day["points"], day["rejected"]) for day in days] == [(1, 1, 1)]
        days = (await client.get(USAGE, headers=everything)).json()["days"]
        assert [(day["messages"], day["rejected"]) for day in days] == [(12, 12)]

    api.run(work)


def test_a_key_whose_devices_are_gone_sees_nothing(api, free_tenant, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        everything = await asker(api, free_tenant)
        limited = await asker(api, free_tenant, free_tenant.devices[:1])
        await fill(client, free_tenant, everything)
        path = f"/api/v1/devices/{free_tenant.devices[0]}"
        assert (await client.delete(path, headers=everything)).status_code == 204
        answer = await client.get(USAGE, headers=limited)
        if answer.status_code == 200:
            assert free_tenant.devices[1] not in answer.text
            assert (
                free_tenant.devices[1] not in (await client.get(REJECTIONS, headers=limited)).text
            )
        else:
            assert answer.status_code in (401, 403, 404)

    api.run(work)


def _cursor(device: str, hour: str = "2999-01-01T00:00:00+00:00", code: str = "a") -> str:
    return urlsafe_b64encode(f"{hour} {device} {code}".encode()).decode()


HOSTILE = [
    "",
    "x",
    "====",
    "é",
    "\0",
    "a" * 60_000,
    urlsafe_b64encode(b"\xff\xfe\xfd").decode(),
    urlsafe_b64encode(b"2026-01-01T00:00:00+00:00").decode(),
    _cursor("d", "now"),
    _cursor("d", "2026-13-01T00:00:00+00:00"),
    _cursor("d", "infinity"),
    _cursor("d", "2026-01-01T00:00:00+25:00"),
    _cursor("d" * 17),
    _cursor("d\0"),
    _cursor("d", code="a\0"),
    _cursor("d", code="'; DROP TABLE account; --"),
]
# nobody gave these out either, and they are harmless
ODD = [
    _cursor("d") + "\n",
    _cursor("d", "2026-01-01T00:00:00-16:00"),
    _cursor("d", "2026-01-01T00:00:00+23:59"),
    _cursor("d", "0001-01-01T00:00:00+14:00"),
    _cursor("d", "9999-12-31T23:59:59-14:00"),
    _cursor("d", "2026-01-01"),
    _cursor("d", "2026-01-01T00:00:00+00:00:01"),
]


def test_cursors_that_are_not_ours_are_422(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = await asker(api, owner)
        for cursor in HOSTILE:
            answer = await client.get(REJECTIONS, params={"cursor": cursor}, headers=headers)
            assert answer.status_code == 422, (cursor[:80], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        for cursor in ODD:
            answer = await client.get(REJECTIONS, params={"cursor": cursor}, headers=headers)
            assert answer.status_code in (200, 422), (cursor, answer.text)

    api.run(work)


@pytest.mark.parametrize(
    "path", ["{}%2Fmetrics%2Ft", "{}%2Fmetrics/t", "{}/metrics%2Ft", "{}%2Fmetrics%2Fx/metrics/t"]
)
@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
def test_a_metric_whose_path_hides_a_slash_is_not_there(
    api, owner, database_url, path, method
) -> None:
    device = owner.devices[0]

    async def work(client: httpx.AsyncClient) -> None:
        headers = await asker(api, owner)
        await client.post(SENT.format(device), json={"t": 1}, headers=headers)
        url = "/api/v1/devices/" + path.format(device)
        body = {"json": {"label": "gone"}} if method == "PATCH" else {}
        answer = await client.request(method, url, headers=headers, **body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        listed = await client.get(f"/api/v1/devices/{device}/metrics", headers=headers)
        assert [(row["metric"], row["label"]) for row in listed.json()["items"]] == [("t", None)]

    api.run(work)


def test_usage_is_told_by_day_and_by_month(api, free_tenant, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = await asker(api, free_tenant)
        await fill(client, free_tenant, headers)
        now = api.now()
        with psycopg.connect(database_url) as conn:
            # as if an eleventh of it had been a year ago, less a month
            conn.execute(
                "UPDATE usage_hour SET hour = date_trunc('month', hour) - interval '11 months'"
                " WHERE device_id = %s", (free_tenant.devices[0],),
            )  # fmt: skip
        usage = (await client.get(USAGE, headers=headers)).json()
        midnight = (now + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
        assert usage["resets_at"] == usage["quota"]["resets_at"] == midnight
        assert usage["today"]["points"] == 10
        old = (now.replace(day=1) - timedelta(days=320)).strftime("%Y-%m")
        found = [(row["month"], row["points"], row["rejected"]) for row in usage["months"]]
        assert found == [(now.strftime("%Y-%m"), 10, 12), (old, 1, 0)]
        for months, rows in ((0, 0), (1, 1), (11, 1), (12, 2)):
            answer = await client.get(USAGE, params={"months": months}, headers=headers)
            assert len(answer.json()["months"]) == rows
        for months in (-1, 37, "x"):
            answer = await client.get(USAGE, params={"months": months}, headers=headers)
            assert answer.status_code == 422

    api.run(work)
