"""Whether one user runs what should be apart: who takes one process over then has them all."""

import pwd
from collections.abc import Iterable, Iterator
from itertools import pairwise

import psutil

from paqett.doctor.findings import Finding
from paqett.settings import Settings

_PROCESSES = ("api", "ingest", "worker", "broker")


def examine_users(settings: Settings) -> Finding:
    """The processes of this machine; in a container there are no others to see."""
    return users_finding(_running(), public=settings.behind_tls)


def _running() -> Iterator[tuple[str, int]]:
    """Each process of ours by its name, and whose it is."""
    for process in psutil.process_iter():
        try:
            words, uid = process.cmdline(), process.uids().effective
        except psutil.Error:
            continue
        for word, name in pairwise(words):
            if word.endswith("paqett") and name in _PROCESSES:
                yield name, uid


def users_finding(running: Iterable[tuple[str, int]], *, public: bool) -> Finding:
    """`running` are names and numbers of users; where strangers come in, they should differ."""
    names: dict[int, set[str]] = {}
    for name, uid in running:
        names.setdefault(uid, set()).add(name)
    shared = {uid: sorted(those) for uid, those in names.items() if len(those) > 1}
    if not shared:
        detail = "no two processes of this machine share one" if names else "none to be seen here"
        return Finding("users", "ok", detail)
    said = [f"{', '.join(those)} run as {_name(uid)}" for uid, those in sorted(shared.items())]
    detail = f"{'; '.join(said)}: whoever takes one over has the others' secrets"
    mend = "use the units of config/systemd or containers (docs/install.md, docs/upgrades.md)"
    return Finding("users", "warning" if public else "ok", detail, mend if public else "")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
