"""Certificates that are renewed while a listener stands: when the files change, or at SIGHUP."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paqett import log

_logger = log.get("tls")
_LOOK_EVERY_S = 2.0

Stamp = tuple[tuple[int, int, int], ...]


def load(cert_file: str, key_file: str) -> ssl.SSLContext:
    """A server's context of the pair.

    Raises `OSError` where a file cannot be read, and its kind `ssl.SSLError` where one is no PEM,
    the key is encrypted, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file or None, password="")  # else OpenSSL would ask
    return context


@contextmanager
def hang_ups() -> Iterator[asyncio.Event]:
    """An event that SIGHUP sets, while this is open; outside the main thread nothing sets it."""
    hung_up = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        yield hung_up
    finally:
        with suppress(RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGHUP)


async def renewals(cert_file: str, key_file: str, hung_up: asyncio.Event) -> AsyncIterator[None]:
    """Once for each new pair that belongs together, and whenever `hung_up` is set.

    A pair that cannot be used is logged, and what was used before stays. Without files there are
    the hang-ups alone.
    """
    last = _stamp(cert_file, key_file)
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(hung_up.wait(), _LOOK_EVERY_S)
        asked, found = hung_up.is_set(), _stamp(cert_file, key_file)
        if not asked and found == last:
            continue
        hung_up.clear()
        last = found
        try:
            if cert_file:
                load(cert_file, key_file)
        except OSError as error:  # also between the writing of the one and the other
            _logger.warning("certificate not taken, the old one stays", error=str(error))
            continue
        yield


def _stamp(*files: str) -> Stamp:
    """What changes with the files; links are followed, as those who renew them use them."""
    found = []
    for name in filter(None, files):
        try:
            state = Path(name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)
