"""Readings over HTTP while the database cannot take them."""

import asyncio

import httpx

from paqett import app
from paqett.flush.door import Door
from paqett.flush.writer import Writer
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.web.server import create_app
from ports import free_port
from support import with_url


def test_ingest_answers_503_and_says_when_to_come_back(api, settings, owner) -> None:
    async def work() -> None:
        key = await api.key(owner.account_id)
        away = with_url(f"postgresql://nobody@127.0.0.1:{free_port(58000)}/none")
        async with app.services(settings, "test") as services:
            application = create_app(services)
            await application.state.door.close()
            directory = Directory(load_plans(settings.plans_file))
            application.state.door = Door(Writer(away.database, "test", directory, 2.0))
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.post(
                    f"/api/v1/devices/{owner.devices[0]}/telemetry",
                    json={"t": 1},
                    headers={"authorization": f"Bearer {key}"},
                )
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0

    asyncio.run(work())
