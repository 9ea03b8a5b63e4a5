"""End a gmqtt connection, whatever state its peer is in."""

import asyncio
from contextlib import suppress

import gmqtt


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
