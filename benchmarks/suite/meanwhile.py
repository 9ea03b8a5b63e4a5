"""Work beside work: threads that go on until a block is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

Work = Callable[[Event], object]


@contextmanager
def meanwhile(*works: Work) -> Iterator[None]:
    """Threads that work until it is over; what goes wrong in one is raised."""
    stop, failed = Event(), []

    def work(one: Work) -> None:
        try:
            one(stop)
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=work, args=(one,), daemon=True) for one in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
