"""Mosquitto for the others: as `paqett broker` configures it, open to topics of any form.

Two of them need topics of their own, which our access list refuses.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from paqett.children import die_with_parent, give, service_user
from paqett.local.packets import Refused, open_connection
from suite.stand import WRITER, BenchmarkError, Stand, end

_ACL = "user {writer}\ntopic readwrite #\npattern readwrite #\n"


@contextmanager
def opened(made: Stand) -> Iterator[subprocess.Popen[bytes]]:
    """On the stand's ports; our own broker must have ended."""
    user = service_user("mosquitto")
    own, folder = made.folder / "broker", made.folder / "open"
    folder.mkdir(exist_ok=True)
    give(folder, user)
    shutil.copy(own / "passwords", folder / "passwords")
    conf = (own / "mosquitto.conf").read_text().replace(str(own), str(folder))
    (folder / "acl").write_text(_ACL.format(writer=WRITER))
    (folder / "mosquitto.conf").write_text(conf)
    for name in ("passwords", "acl", "mosquitto.conf"):
        (folder / name).chmod(0o600)
        give(folder / name, user)
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "mosquitto"
    with (made.folder / "open.log").open("ab") as out:
        child = subprocess.Popen(
            [binary, "-c", str(folder / "mosquitto.conf")], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM, user),
        )  # fmt: skip
    try:
        _wait(made, child)
        yield child
    finally:
        end(child, signal.SIGTERM)


def _wait(made: Stand, child: subprocess.Popen[bytes]) -> None:
    device = made.devices[0]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and child.poll() is None:
        try:
            open_connection(made.ports["plain"], device.id, device.secret).close()
        except (OSError, Refused):
            time.sleep(0.1)
        else:
            return
    raise BenchmarkError(f"the open broker does not answer\n{made.log_tail()}")
