"""The end of a gmqtt connection, whatever state its peer is in."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import gmqtt

from paqett.mqtt.guarded import require_places


async def close_client(client: gmqtt.Client) -> None:
    """Leave in order where the peer listens; two seconds later, or where it is gone, anyhow."""
    connection = client._connection  # noqa: SLF001 - gmqtt's own close waits for the peer
    if connection is None:
        return
    with suppress(Exception):
        async with asyncio.timeout(2):
            await (client.disconnect() if client.is_connected else connection.close())
    connection._transport.abort()  # noqa: SLF001 - gmqtt has no public way
    await asyncio.sleep(0)


def losing(client: gmqtt.Client) -> asyncio.Event:
    """Set once the connection is lost; gmqtt's own reconnect, which resubscribes nothing, is off.

    Raises `ConfigurationError` where this gmqtt has no such place.
    """
    lost = asyncio.Event()
    handler = client._package_handler  # noqa: SLF001 - the guarded place
    require_places(handler, "_reconnect_callback")

    async def note_loss(**_: object) -> None:
        lost.set()

    handler._reconnect_callback = note_loss  # noqa: SLF001 - the guarded place
    return lost


async def until_lost(connection: Any, lost: asyncio.Event, keepalive_s: float) -> None:
    """Return when `lost` is set, or the peer has been silent for twice the keepalive.

    gmqtt notices the silence too, but then waits for a peer that is not there.
    """
    while not lost.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(lost.wait(), keepalive_s / 2)
        if time.monotonic() - connection._last_data_in > 2 * keepalive_s:  # noqa: SLF001 - no public way
            return
