"""How often a stranger may try: a sliding window for each rule and whatever it counts by.

The windows stand in PostgreSQL, so any number of API processes agree. A window holds the time of
each attempt, so it is exact: at no moment do `window_s` seconds hold more than `limit`. Attempts
are stored under a hash, and forgotten by the worker when their window has passed.
"""

import hashlib
from datetime import datetime, timedelta
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from math import ceil

import msgspec

from paqett.db import Connection
from paqett.errors import TooManyRequests
from paqett.sqlfiles import query

_MINUTE, _QUARTER, _HOUR = 60, 900, 3600


class Rule(msgspec.Struct, frozen=True):
    """At most `limit` attempts in any `window_s` seconds; the name is part of the answer."""

    name: str
    limit: int
    window_s: int


# What each counts by stands in its name: a network (see `network_of`), an e-mail address, both of
# them (`pair`), or an account's number.
SIGN_IN_ADDRESS = Rule("sign_in_address", 30, _QUARTER)
SIGN_IN_PAIR = Rule("sign_in_pair", 10, _QUARTER)
SIGN_IN_ACCOUNT = Rule("sign_in_account", 100, _HOUR)
REGISTER_ADDRESS = Rule("register_address", 10, _HOUR)
REGISTER_EMAIL = Rule("register_email", 5, _HOUR)
RESET_ADDRESS = Rule("reset_address", 10, _HOUR)
RESET_EMAIL = Rule("reset_email", 3, _HOUR)
PROVIDER_ADDRESS = Rule("provider_address", 30, _QUARTER)
KEYS_ACCOUNT = Rule("keys_account", 100, _HOUR)
TOKEN_ADDRESS = Rule("token_address", 30, _HOUR)
RECEIPT_ADDRESS = Rule("receipt_address", 60, _MINUTE)
KEY_FAILURES_ADDRESS = Rule("key_failures_address", 60, _MINUTE)
REAUTHENTICATE_ACCOUNT = Rule("reauthenticate_account", 10, _QUARTER)
CODE_ACCOUNT = Rule("code_account", 5, _HOUR)
BILLING_ACCOUNT = Rule("billing_account", 30, _QUARTER)


async def hit(conn: Connection, rule: Rule, key: str, now: datetime) -> None:
    """Count one attempt at `key`. Raises `TooManyRequests`, and counts nothing, where it is full.

    Call it in a transaction of its own, before the attempt: an attempt that fails must not take
    the count back with it, and the row is locked until the commit.
    """
    window = timedelta(seconds=rule.window_s)
    values = {
        "hash": _hash(rule, key),
        "limit": rule.limit,
        "now": now,
        "since": now - window,
        "expires": now + window,
    }
    row = await (await conn.execute(query("unscoped_hit"), values)).fetchone()
    if row is not None and row["refused"]:
        wait_s = ceil((row["oldest"] + window - now).total_seconds())
        raise TooManyRequests(rule.name, rule.limit, rule.window_s, max(1, wait_s))


async def forgive(conn: Connection, rule: Rule, key: str, at: datetime | None = None) -> None:
    """Take attempts at `key` back after a success: all of them, or the one counted at `at`.

    All only where nobody but the rightful owner can succeed at `key`: one who guesses from an
    address could otherwise clear it again and again by signing in to an account of their own.
    """
    values = {"hash": _hash(rule, key), "at": at}
    if at is None:
        await conn.execute(query("unscoped_forgive"), values)
    else:
        await conn.execute(query("unscoped_forgive_one"), values)


def network_of(ip: str) -> str:
    """What an address counts by: an IPv4 address itself, the /64 an IPv6 address lies in.

    A line at home or a rented machine is given a whole /64. What is no address stays as it is.
    """
    try:
        address = IPv6Address(ip.partition("%")[0])
    except AddressValueError:
        return ip
    mapped: IPv4Address | None = address.ipv4_mapped
    if mapped is not None:
        return str(mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def _hash(rule: Rule, key: str) -> bytes:
    # PostgreSQL's lower() makes i of the capital with a dot, Python an i and a dot above it
    folded = key.strip().casefold().replace("i\u0307", "i")
    return hashlib.sha256(f"{rule.name}|{folded}".encode()).digest()
