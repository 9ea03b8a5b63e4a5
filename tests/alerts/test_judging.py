"""What counts as a reading, on which devices, through which door, and what a rule's change does."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from paqett.alert_rules import RuleChange
from paqett.readings.incoming import Incoming
from paqett.readings.write import write_batch
from paqett.settings import Settings


def test_a_threshold_fires_once_and_resolves_at_its_clear_level(house) -> None:
    house.above(30, clear=28)
    for value in (29, 31, 32, 29, 31, 28, 27):
        house.later(1)
        house.send({"t": value})
        house.tick()
    assert house.states() == ["resolved"]
    assert house.told() == ["alert_firing", "alert_resolved"]
    resolved, fired = house.titles()
    assert fired == "Alert: rule on owner-0: t is 31, above 30."
    assert resolved == "Resolved: rule on owner-0: t is 28, which is good again."


def test_a_value_is_told_in_its_unit(house) -> None:
    house.above(30.5)
    house.send({"t": 31.5})
    house.rows("UPDATE series SET unit = '°C' WHERE metric = 't'")
    house.tick()
    house.later(1)
    house.send({"t": 2})
    house.tick()
    resolved, fired = house.titles()
    assert fired == "Alert: rule on owner-0: t is 31.5 °C, above 30.5 °C."
    assert resolved == "Resolved: rule on owner-0: t is 2 °C, which is good again."
    data = house.rows("SELECT data -> 'value', data -> 'unit' FROM notice ORDER BY id")
    assert data == [(31.5, "°C"), (2, "°C")]


def test_a_level_has_a_unit_where_all_its_devices_have_the_same(house) -> None:
    everywhere, here = house.above(), house.above(device_id=house.devices[0])
    for device in (0, 1):
        house.send({"t": 1}, device=device)
    unit = "UPDATE series SET unit = %s WHERE device_id = %s"
    for other, found in ((None, {}), ("°F", {}), ("°C", {everywhere.id: "°C"})):
        house.rows(unit, "°C", house.devices[0])
        house.rows(unit, other, house.devices[1])
        assert house.units() == {here.id: "°C"} | found


def test_a_boolean_is_compared_with_equals(house) -> None:
    house.rule(kind="threshold", metric="open", operator="==", threshold=True)
    for value in (False, True, True, False):
        house.later(1)
        house.send({"open": value})
    house.tick()
    assert house.states() == ["resolved"]
    assert house.titles()[1] == "Alert: rule on owner-0: open is true."


def test_pending_fires_by_the_clock_when_nothing_more_comes(house) -> None:
    house.above(**{"for": 60})
    house.send({"t": 31})
    house.later(59)
    house.tick()
    assert house.states() == ["pending"]
    house.later(1)
    house.tick()
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])
    house.send({"t": 1})  # its process has not heard of the timer
    house.tick()
    assert (house.states(), house.told()[1:]) == (["resolved"], ["alert_resolved"])


def test_a_dip_ends_pending_without_a_trace(house) -> None:
    house.above(**{"for": 60})
    for value in (31, 30, 31):
        house.later(40)
        house.send({"t": value})
    house.later(30)
    house.tick()
    assert (house.states(), house.told()) == (["pending"], [])


def test_late_and_out_of_order_readings_neither_fire_nor_resolve(house) -> None:
    house.above()
    house.send({"t": 1})
    now = house.us // 1_000_000
    house.send({"ts": now - 301, "t": 99}, {"ts": now - 10, "t": 99})
    assert house.states() == []
    house.later(5)
    house.send({"t": 99})
    house.restart()
    house.later(5)
    house.send({"ts": now + 4, "t": 1}, {"ts": now - 400, "t": 1})
    assert house.states() == ["firing"]


def test_the_same_reading_again_changes_nothing(house) -> None:
    house.above()
    now = house.us // 1_000_000
    house.send({"ts": now, "t": 99})
    house.send({"ts": now, "t": 1}, door=1)
    house.restart()
    house.send({"ts": now, "t": 99}, {"ts": now, "t": 1})
    house.tick()
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])


def test_a_rule_without_a_device_watches_those_that_come_later(house) -> None:
    house.above()
    house.send({"humidity": 99}, device=0)
    house.send({"t": 99}, device=1)
    assert (house.states(0), house.states(1)) == ([], ["firing"])
    house.later(1)
    house.send({"humidity": 99, "t": 99}, device=0)
    assert house.states(0) == ["firing"]


def test_two_processes_see_one_alert(house) -> None:
    house.above()
    house.send({"t": 1}, door=1)
    for number, value in enumerate((31, 32, 1, 2, 31, 1)):
        house.later(1)
        house.send({"t": value}, door=number % 2)
    house.tick()
    assert house.states() == ["resolved", "resolved"]
    assert house.told() == ["alert_firing", "alert_resolved"] * 2


def test_flushes_at_once_make_one_alert(house) -> None:
    house.above()
    house.send({"t": 1}, door=0)
    house.send({"u": 1}, door=1)

    async def flush(door: int) -> None:
        from paqett import db

        connecting = db.connect(house.settings.database, "test", autocommit=True)
        async with await connecting as conn, conn.transaction():
            payload = b'{"t": 99}'
            message = Incoming(house.devices[0], "telemetry", payload, house.us + 10 + door)
            await write_batch(conn, house.doors[door], [message])
            await asyncio.sleep(0.1)

    async def run() -> None:
        await asyncio.gather(flush(0), flush(1))

    asyncio.run(run())
    house.tick()
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])


def test_a_flush_that_is_rolled_back_has_fired_nothing(house) -> None:
    house.above()
    house.send({"t": 1})
    house.later(1)
    house.send({"t": 99}, kill=True)
    house.tick()
    assert (house.states(), house.told()) == ([], [])
    house.send({"t": 99})
    house.tick()
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])


def test_readings_past_the_quota_are_judged_before_they_are_thinned(free_house) -> None:
    house = free_house
    house.above()
    house.send({"t": 1})
    house.rows("UPDATE allowance SET points = 260000, day = %s", house.now.date())
    house.later(1)
    outcome = house.send({"t": 99})
    assert (outcome.stored, outcome.rejected) == (0, {"quota_thinned": 1})
    assert house.states() == ["firing"]
    now = house.us // 1_000_000
    house.restart()
    house.later(1)
    house.send({"ts": now - 1, "t": 1})  # older than what was judged and not stored
    assert house.states() == ["firing"]
    house.later(1)
    house.send({"t": 1})
    assert house.states() == ["resolved"]


def test_messages_beyond_the_devices_rate_are_no_readings(free_house) -> None:
    house = free_house
    house.above()
    house.send(*[{"t": 1}] * 61)
    assert house.send({"t": 99}, at=house.us + 1000).rejected == {"rate_limited": 1}
    assert house.states() == []


def test_text_is_not_compared(house) -> None:
    house.above()
    house.send({"t": "warm"})
    assert house.states() == []


def test_a_metric_that_becomes_text_or_goes_ends_its_alert(house) -> None:
    house.above()
    house.send({"t": 99})
    house.rows("UPDATE series SET kind = 'text'")
    house.tick()
    assert house.states() == ["resolved"]
    assert house.titles()[0].endswith("t was deleted, or is no longer a number.")


def test_a_rules_change_reaches_the_next_flush_and_begins_anew(house) -> None:
    rule = house.above()
    house.send({"t": 35})
    house.tick()
    change = msgspec.convert({"threshold": 40}, RuleChange)
    account = _account(house)

    async def work(conn: Any) -> None:
        from paqett import alerts

        await alerts.update(conn, account, rule.id, change, None, house.now)

    house.do(work)
    assert house.rows("SELECT state, reason FROM alert") == [("resolved", "rule_changed")]
    house.later(1)
    house.send({"t": 36})
    assert house.states() == ["resolved"]
    house.later(1)
    house.send({"t": 41})
    house.tick()
    assert house.states() == ["resolved", "firing"]
    assert house.told() == ["alert_firing", "alert_firing"]  # nobody hears of the change itself


def _account(house: Any) -> Any:
    from paqett.accounts import Account

    row = house.rows(
        "SELECT id, email, plan, tier, moving_from, readable_from, retention FROM account"
        " JOIN tier ON tier.name = tier WHERE id = %s",
        house.account_id,
    )[0]
    return Account(*row)


def test_a_flush_without_rules_asks_nothing_about_them(house, monkeypatch) -> None:
    from paqett.readings import write

    async def never(*_: object) -> None:
        raise AssertionError("judged")

    monkeypatch.setattr(write, "judge", never)
    house.rule(kind="threshold", metric="t", operator=">", threshold=1, device_id=house.devices[1])
    assert house.send({"t": 99}, device=0).stored == 1
    with pytest.raises(AssertionError):
        house.send({"t": 99}, device=1)


def test_readings_over_http_are_judged_like_those_over_mqtt(settings: Settings, house) -> None:
    from paqett import app
    from paqett.web.server import create_app

    house.above()

    async def run() -> None:
        async with app.services(settings, "test") as services:
            application = create_app(services)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                from paqett import db, keys

                async with db.transaction(services.pool) as conn:
                    made = await keys.create(
                        conn, house.account_id, "k", ["telemetry:write"], None, None
                    )
                answer = await client.post(
                    f"/api/v1/devices/{house.devices[0]}/telemetry", json={"t": 99},
                    headers={"Authorization": f"Bearer {made.key}"},
                )  # fmt: skip
                assert answer.json()["accepted"] == 1
            await application.state.door.close()

    asyncio.run(run())
    assert house.states() == ["firing"]


def test_an_alert_that_waited_in_the_spool_is_not_fired_by_the_clock_before_its_readings_are_read(
    house,
) -> None:
    import time

    house.above(**{"for": 60})
    received = int(time.time() * 1e6) - 600_000_000  # ten minutes ago
    house.send({"t": 99}, at=received)
    from datetime import UTC, datetime

    house.now = datetime.now(UTC)
    house.tick()
    assert house.states() == ["pending"]
    house.send({"t": 1}, at=received + 30_000_000)
    assert house.states() == []
