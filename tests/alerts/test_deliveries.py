"""Webhooks: each notice arrives, once or under one id, whatever dies; what fails is tried again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from house import House, Killed
from paqett import channels, notices
from paqett import webhooks as calls
from paqett.app import Services
from paqett.db import Connection
from paqett.notices import ChannelsIn, PreferencesIn
from paqett.worker import webhooks
from receiver import Receiver
from support import with_url

Task = Callable[..., Any]


class Tasks:
    """Takes the place of procrastinate's registry: the tasks by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Task] = {}

    def task(self, *, name: str, **_: Any) -> Callable[[Task], Task]:
        def keep(task: Task) -> Task:
            self.by_name[name] = task
            return task

        return keep


class Courier:
    """Works the jobs of deliveries one by one; one that was killed stays to be done."""

    def __init__(self, house: House, receiver: Receiver) -> None:
        self.house, self.receiver = house, receiver
        house.settings = with_url(
            house.settings.database.url, PAQETT_WEBHOOKS__ALLOW_PRIVATE="true"
        )
        self.url = f"http://127.0.0.1:{receiver.port}/hook"

    def channel(self) -> channels.NewChannel:
        house = self.house
        return house.do(  # type: ignore[no-any-return]
            lambda conn: channels.create(conn, house.account_id, "hook", self.url, house.now)
        )

    def happen(self, event: str = "alert_firing", **data: Any) -> None:
        """Something that is told."""
        told = {"rule": "r", "device_name": "d", "what": "w", **data}
        house = self.house
        house.do(lambda conn: notices.notify(conn, house.account_id, event, **told))

    def jobs(self) -> list[tuple[int, dict[str, Any]]]:
        rows = self.house.rows(
            "SELECT id, args FROM procrastinate_jobs WHERE task_name = 'deliver_webhook'"
            " AND status = 'todo' ORDER BY id"
        )
        return [(number, args) for number, args in rows]

    def work(self) -> None:
        """Every job there is now, due or not; those it makes are left."""

        async def run(services: Services) -> None:
            tasks = Tasks()
            webhooks.register(tasks, services)  # type: ignore[arg-type]
            for number, args in self.jobs():
                try:
                    await tasks.by_name["deliver_webhook"](**args)
                except Killed:
                    continue
                self.house.rows("DELETE FROM procrastinate_jobs WHERE id = %s", number)

        self.house.serve(run)

    def log(self) -> list[channels.Delivery]:
        house = self.house

        async def read(conn: Connection) -> list[channels.Channel]:
            return await channels.list_channels(conn, house.account_id, "a@example.org")

        return [delivery for channel in house.do(read)[1:] for delivery in channel.deliveries]

    def only(self) -> channels.Channel:
        house = self.house
        found: list[channels.Channel] = house.do(
            lambda conn: channels.list_channels(conn, house.account_id, "a@example.org")
        )
        return found[1]


@pytest.fixture
def courier(house, receiver) -> Courier:
    return Courier(house, receiver)


def test_a_notice_arrives_once_with_its_words_and_its_id(courier, receiver) -> None:
    courier.channel()
    courier.happen(device="abc", value=31.5)
    courier.work()
    courier.work()
    [(headers, body)] = receiver.got
    sent = msgspec.json.decode(body)
    [delivery] = courier.log()
    assert sent["id"] == headers["Paqett-Delivery"] == delivery.id
    assert (sent["event"], sent["kind"], sent["title"]) == (
        "alert_firing",
        "device",
        "Alert: r on d",
    )
    assert (sent["data"]["device"], sent["data"]["value"]) == ("abc", 31.5)
    assert delivery.state == "delivered"
    assert [(a.status, a.error) for a in delivery.attempts] == [(200, None)]


def _kill(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, after: bool) -> None:
    """The next call of a step does its work, or none, and then the worker is gone."""
    real = getattr(module, name)

    async def step(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(module, name, real)
        if after:
            await real(*arguments, **more)
        raise Killed

    monkeypatch.setattr(module, name, step)


STEPS = [
    (channels, "due", False, 1), (channels, "due", True, 1), (calls, "call", False, 1),
    (calls, "call", True, 2), (channels, "note", False, 2), (channels, "note", True, 2),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name", "after", "times"), STEPS)
@pytest.mark.parametrize("status", [200, 500])
def test_a_worker_killed_at_any_step_loses_nothing_and_repeats_only_what_was_not_noted(
    courier, receiver, monkeypatch, module, name, after, times, status
) -> None:
    courier.channel()
    courier.happen()
    receiver.status = status
    _kill(monkeypatch, module, name, after=after)
    courier.work()
    assert len(courier.jobs()) == 1
    courier.work()
    assert len(receiver.got) == times
    assert len({headers["Paqett-Delivery"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    [delivery] = courier.log()
    assert [a.status for a in delivery.attempts] == [status]
    receiver.status = 200
    courier.work()
    courier.work()
    assert courier.log()[0].state == "delivered"
    assert courier.jobs() == []


def test_a_worker_killed_while_it_tells_has_told_nothing_and_tells_once(house, monkeypatch) -> None:
    house.above()
    house.send({"t": 99})
    for after in (False, True):
        _kill(monkeypatch, notices, "notify", after=after)
        with pytest.raises(Killed):
            house.tick()
        assert house.told() == []
    house.tick()
    house.tick()
    assert house.told() == ["alert_firing"]


def test_a_failure_is_tried_again_later_and_later_and_at_last_given_up(courier, receiver) -> None:
    courier.channel()
    courier.happen()
    receiver.status = 503
    waits = []
    for _ in range(20):
        courier.work()
        found = courier.house.rows(
            "SELECT extract(epoch FROM scheduled_at - now())::float8 FROM procrastinate_jobs"
            " WHERE task_name = 'deliver_webhook'"
        )
        waits += [wait for (wait,) in found]
    assert len(waits) == 19
    assert waits[0] <= 2
    assert 3600 - 60 <= waits[-1] <= 7200
    [delivery] = courier.log()
    assert (delivery.state, len(delivery.attempts)) == ("failed", 20)
    assert {a.error for a in delivery.attempts} == {"answered 503"}
    assert courier.jobs() == []


def test_a_channel_that_fails_fifty_times_in_a_row_is_paused_and_says_so_once(
    courier, receiver
) -> None:
    courier.channel()
    receiver.status = 500
    courier.house.rows("UPDATE channel SET failures = 48")
    for _ in range(3):
        courier.happen()
    courier.work()
    assert (courier.only().failures, courier.only().paused_at) == (50, courier.house.now)
    told = courier.house.rows("SELECT event, kind FROM notice WHERE event = 'channel_paused'")
    assert told == [("channel_paused", "security")]
    courier.work()
    assert courier.jobs() == []
    assert len(receiver.got) == 2  # the third was not tried any more
    assert {delivery.state for delivery in courier.log()} == {"failed"}
    courier.happen()
    assert courier.jobs() == []
    _test_it(courier)
    assert (courier.only().failures, len(courier.jobs())) == (51, 0)
    receiver.status = 204
    _test_it(courier)
    assert (courier.only().failures, courier.only().paused_at) == (0, None)
    courier.happen()
    courier.work()
    assert courier.log()[0].state == "delivered"
    assert len(told) == 1


def _test_it(courier: Courier) -> None:
    house, channel = courier.house, courier.only()
    house.do(lambda conn: channels.test(conn, house.account_id, channel.id))
    courier.work()
    body = msgspec.json.decode(courier.receiver.got[-1][1])
    assert (body["event"], body["kind"], body["notice"]) == ("test", "test", None)


def test_success_begins_the_count_of_failures_anew(courier, receiver) -> None:
    courier.channel()
    courier.house.rows("UPDATE channel SET failures = 49")
    courier.happen()
    courier.work()
    assert courier.only().failures == 0


def test_for_a_day_both_secrets_sign(courier, receiver) -> None:
    made, house = courier.channel(), courier.house
    house.rows("UPDATE channel SET created_at = now()")
    second = house.do(lambda conn: channels.rotate_secret(conn, house.account_id, made.id))
    assert second != made.secret
    for hours, signatures in ((0, 2), (25, 1)):
        house.later(hours * 3600)
        courier.happen()
        courier.work()
        assert receiver.got[-1][0]["Paqett-Signature"].count("v1=") == signatures


def test_a_deleted_channel_gets_nothing_that_waited_for_it(courier, receiver) -> None:
    made, house = courier.channel(), courier.house
    courier.happen()
    house.do(lambda conn: channels.delete(conn, house.account_id, made.id))
    courier.work()
    assert (receiver.got, courier.jobs()) == ([], [])


def test_what_is_unwanted_or_about_security_goes_to_no_webhook(courier, receiver) -> None:
    courier.channel()
    house = courier.house
    wanted = PreferencesIn(device=ChannelsIn(webhook=False))
    house.do(lambda conn: notices.set_preferences(conn, house.account_id, wanted))
    courier.happen()
    courier.happen("password_changed")
    assert courier.jobs() == []
    wanted = PreferencesIn(device=ChannelsIn(webhook=True))
    chosen = house.do(lambda conn: notices.set_preferences(conn, house.account_id, wanted))
    assert (chosen.device, chosen.security.webhook) == (notices.Channels(True, True), False)
    courier.happen()
    assert len(courier.jobs()) == 1


def test_the_log_is_forgotten_after_thirty_days(courier) -> None:
    from paqett.worker import alerts

    courier.channel()
    courier.happen()
    courier.house.now += timedelta(days=31)
    courier.house.serve(alerts.forget_old)
    assert courier.log() == []


def test_a_private_address_is_tried_and_logged_as_refused(courier, receiver) -> None:
    courier.channel()
    courier.happen()
    courier.house.settings = with_url(courier.house.settings.database.url)
    courier.work()
    [delivery] = courier.log()
    assert delivery.attempts[0].error == "url must begin with https://"
    assert receiver.got == []
