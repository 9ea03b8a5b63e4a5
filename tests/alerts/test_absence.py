"""Silence and connections: what no reading tells."""

from datetime import timedelta

import pytest


@pytest.fixture(autouse=True)
def heard_of_ingest(house) -> None:
    """The timers have looked for a while."""
    house.tick()


def seen(house, device: int = 0, connection: str = "online") -> None:
    """What the broker has recorded."""
    house.rows(
        "UPDATE device SET connection = %s, connection_since = %s WHERE id = %s",
        connection, house.now, house.devices[device],
    )  # fmt: skip


def beat(house) -> None:
    house.rows(
        "INSERT INTO broker_record (seen_at) VALUES (%s)"
        " ON CONFLICT (singleton) DO UPDATE SET seen_at = EXCLUDED.seen_at",
        house.now,
    )


def wait(house, seconds: int) -> None:
    """The worker and the broker's record go on."""
    for _ in range(0, seconds, 10):
        house.later(10)
        beat(house)
        house.tick()


def test_a_silent_device_is_told_of_once_and_again_when_it_sends(house) -> None:
    house.rule(kind="no_data", device_id=house.devices[0], **{"for": 60})
    house.send({"t": 1})
    wait(house, 50)
    assert house.states() == []
    wait(house, 30)
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])
    house.restart()
    house.send({"mode": "auto"})
    house.tick()
    assert (house.states(), house.told()) == (["resolved"], ["alert_firing", "alert_resolved"])
    assert house.titles()[0] == "Resolved: rule on owner-0: The device sends again."
    wait(house, 70)
    assert house.states() == ["resolved", "firing"]


def test_a_device_that_never_sent_is_silent_from_the_rules_making_on(house) -> None:
    house.rule(kind="no_data", **{"for": 60})
    wait(house, 60)
    assert (house.states(0), house.states(1)) == (["firing"], ["firing"])


def test_late_readings_neither_end_silence_nor_put_it_off(house) -> None:
    house.rule(kind="no_data", device_id=house.devices[0], **{"for": 60})
    house.send({"t": 1})
    wait(house, 40)
    now = house.us // 1_000_000
    house.send({"ts": now - 400, "t": 1})
    wait(house, 20)
    assert house.states() == ["firing"]
    house.send({"ts": house.us // 1_000_000 - 400, "t": 1})
    assert house.states() == ["firing"]


def test_the_silence_of_one_metric_is_seen_while_the_device_sends_others(house) -> None:
    house.rule(kind="no_data", metric="t", **{"for": 60})
    house.send({"t": 1, "u": 1})
    for _ in range(6):
        wait(house, 10)
        house.send({"u": 1})
    wait(house, 10)
    assert house.states() == ["firing"]
    assert house.states(1) == []  # it has no such metric
    house.send({"u": 2})
    assert house.states() == ["firing"]
    house.later(1)
    house.send({"t": 2}, door=1)
    assert house.states() == ["resolved"]


def test_silence_while_nobody_could_hear_is_counted_anew(house) -> None:
    house.rule(kind="no_data", device_id=house.devices[0], **{"for": 60})
    house.send({"t": 1})
    house.later(600)  # the worker was gone, or its database
    house.tick()
    assert house.states() == []
    wait(house, 60)
    assert house.states() == ["firing"]


def test_silence_without_any_ingest_is_ours(house) -> None:
    house.rule(kind="no_data", device_id=house.devices[0], **{"for": 60})
    house.send({"t": 1})
    house.rows("UPDATE alert_timer SET ingest_at = %s", house.now)
    wait(house, 120)
    assert house.states() == []


def test_readings_past_the_quota_are_no_silence(free_house) -> None:
    house = free_house
    house.tick()
    house.rule(kind="no_data", metric="t", **{"for": 60})
    house.rule(kind="no_data", **{"for": 60})
    house.send({"t": 1}, device=0)
    house.rows("UPDATE allowance SET points = 400000, day = %s", house.now.date())
    for _ in range(8):
        house.wait(10)
        assert house.send({"t": 99}).stored == 0
    assert house.states() == []


def test_a_device_that_is_gone_is_told_of_after_its_time(house) -> None:
    house.rule(kind="offline", **{"for": 30})
    seen(house, connection="online")
    wait(house, 60)
    seen(house, connection="offline")
    wait(house, 20)
    assert house.states() == []
    wait(house, 20)
    assert (house.states(), house.told()) == (["firing"], ["alert_firing"])
    seen(house, connection="online")
    wait(house, 10)
    assert (house.states(), house.told()) == (["resolved"], ["alert_firing", "alert_resolved"])
    assert house.states(1) == []  # it was never there


def test_a_missing_record_of_the_broker_neither_fires_nor_resolves(house) -> None:
    house.rule(kind="offline", **{"for": 30})
    beat(house)
    house.wait(120)
    seen(house, connection="offline")
    house.wait(60)
    assert house.states() == []


def test_two_workers_fire_once(house) -> None:
    import asyncio

    from paqett.worker import alerts as worker

    house.rule(kind="no_data", **{"for": 60})
    wait(house, 50)
    house.later(10)

    async def both(services: object) -> None:
        await asyncio.gather(*(worker.look_after_absence(services) for _ in range(3)))

    house.serve(both)
    assert (house.states(0), house.states(1)) == (["firing"], ["firing"])
    assert house.told() == ["alert_firing"] * 2


def pause(house, device: int, *, paused: bool) -> None:
    """What a plan with room for fewer devices does, and one with room for more."""
    from paqett import pauses

    for number, name in enumerate(house.devices):  # made in one moment, they have no order
        house.rows(
            "UPDATE device SET created_at = %s WHERE id = %s",
            house.now - timedelta(days=9 - number), name,
        )  # fmt: skip

    async def work(conn) -> None:
        await pauses.fit(conn, house.account_id, device if paused else None, house.now)

    house.do(work)


def test_a_paused_device_is_neither_silent_nor_offline(house) -> None:
    for kind in ("no_data", "offline"):
        house.rule(kind=kind, device_id=house.devices[1], **{"for": 60})
    house.rule(kind="no_data", metric="t", **{"for": 60})
    for device in (0, 1):
        house.send({"t": 1}, device=device)
        seen(house, device)
    pause(house, 1, paused=True)
    seen(house, 1, "offline")
    wait(house, 100)
    assert (house.states(1), house.states(0)) == ([], ["firing"])
    # from here on it counts anew
    pause(house, 1, paused=False)
    wait(house, 50)
    assert house.states(1) == []
    wait(house, 20)
    assert house.states(1) == ["firing"] * 3


def test_what_fires_on_a_device_ends_when_it_is_paused(house) -> None:
    house.rule(kind="no_data", device_id=house.devices[1], **{"for": 60})
    house.above(30)
    house.send({"t": 31}, device=1)
    wait(house, 70)
    assert house.states(1) == ["firing", "firing"]
    pause(house, 1, paused=True)
    wait(house, 10)
    assert house.states(1) == ["resolved", "resolved"]
    assert house.titles()[0].endswith(
        "The device is paused, since your plan has room for older ones only."
    )
    wait(house, 70)
    assert house.states(1) == ["resolved", "resolved"]
