"""The simulated fleet: believable, finite, and with a ledger that holds only what was promised."""

import asyncio
import json
import math
from pathlib import Path

import pytest

from mosquitto import SECRET, Broker
from paqett import db
from paqett.errors import NotFound
from paqett.local import fleet, simulate
from paqett.local.fleet import SimDevice
from paqett.plans import load_plans
from paqett.settings import Settings


class _Promises:
    """Stands in for a connection: keeps the payloads, acknowledges when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, asyncio.Future[None]]] = []

    def enqueue(self, _: str, payload: bytes) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self.sent.append((payload, future))
        return future


def test_signals_are_finite_and_have_their_faults() -> None:
    signal = simulate.Signal("seed")
    read = [signal.read(1_700_000_000 + 15.0 * n) for n in range(20_000)]
    values = [entry for entry in read if entry is not None]
    assert all(math.isfinite(value) for entry in values for value in entry.values())
    assert 0 < read.count(None) < 2_000, "gaps"
    temperatures = [entry["temperature"] for entry in values]
    assert max(temperatures) > 60 or min(temperatures) < -20, "spikes"
    assert any(len(set(temperatures[n : n + 5])) == 1 for n in range(len(temperatures) - 5)), (
        "a stuck sensor"
    )
    assert values[-1]["battery"] < values[0]["battery"]
    pairs = [(entry["temperature"], entry["humidity"]) for entry in values]
    assert _correlation(pairs) < -0.3


def _correlation(pairs: list[tuple[float, float]]) -> float:
    from statistics import correlation

    return correlation(*zip(*pairs, strict=True))


def test_the_ledger_holds_what_was_acknowledged_and_late_readings_come_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "_LATE", 0.05)
    path = tmp_path / "ledger.jsonl"

    async def work() -> list[list[int]]:
        ledger, promises = simulate.Ledger(), _Promises()
        with path.open("w") as file:
            sender = simulate._Sender(SimDevice("dev", "s", 1), promises, ledger, file)  # type: ignore[arg-type]
            for n in range(500):
                sender.tick(1_700_000_000_000_000 + n)
            sender.flush()
            for number, (_, future) in enumerate(promises.sent):
                if number % 2:
                    future.set_result(None)
                else:
                    future.set_exception(RuntimeError("refused"))
            await asyncio.sleep(0)
        assert ledger.published == len(promises.sent)
        assert ledger.acknowledged == len(promises.sent) // 2
        decoded = [json.loads(payload) for payload, _ in promises.sent]
        promised = [
            [entry["ts"] for entry in (item if isinstance(item, list) else [item])]
            for item in decoded
        ]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [at for number, stamps in enumerate(promised) if number % 2 for at in stamps]
        assert [at for _, at, _ in lines] == kept
        assert {(device, points) for device, _, points in lines} == {("dev", 3)}
        return promised

    batches = [stamps for stamps in asyncio.run(work()) if len(stamps) > 1]
    assert batches
    assert any(stamps != sorted(stamps) for stamps in batches)


def test_a_fleet_is_taken_up_again_and_removed_alone(settings: Settings) -> None:
    own = load_plans(settings.plans_file)["own"]

    async def work() -> None:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            made = await fleet.create(conn, "a", 10, 2, own)
            assert len({device.id for device in made}) == 10
            assert len({device.account_id for device in made}) == 2
            again = await fleet.create(conn, "a", 10, 2, own)
            assert {device.id for device in again} == {device.id for device in made}
            assert {device.secret for device in again}.isdisjoint(d.secret for d in made)
            other = await fleet.create(conn, "a-b", 2, 1, own)
            for name in ("%", "_", ".*"):
                with pytest.raises(NotFound):
                    await fleet.remove(conn, name)
            await fleet.remove(conn, "a")
            rows = await (await conn.execute("SELECT id FROM device")).fetchall()
            assert {row["id"] for row in rows} == {device.id for device in other}

    asyncio.run(work())


def test_a_fleet_sends_over_a_real_broker(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    ids = [f"sim{n}" for n in range(20)]
    broker.allow(*ids)
    broker.start()
    path = tmp_path / "ledger.jsonl"

    async def work() -> simulate.Ledger:
        devices = [SimDevice(name, SECRET, 1) for name in ids]
        return await simulate.run(
            devices, "127.0.0.1", broker.port, 10.0, asyncio.Event(), 2.0, ledger_file=str(path)
        )

    try:
        ledger = asyncio.run(work())
    finally:
        broker.kill()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert ledger.acknowledged == ledger.published > 100
    assert {device for device, _, _ in lines} == set(ids)
    assert len({(device, at) for device, at, _ in lines}) == len(lines) >= ledger.acknowledged
