"""Bodies, paths and headers nobody sends in good faith: told what is wrong, never a fault of ours.

Endpoints are found in the OpenAPI document, so that a new one is tried as well.
"""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from people import Person, new_person

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "empty": b"",
    "not json": b"{",
    "null": b"null",
    "number": b"1",
    "string": b'"x"',
    "array": b"[]",
    "nested arrays": b"[" * DEEP + b"]" * DEEP,
    "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "huge number": b'{"email":1e999,"thing_name":1e999,"t":1e999}',
    "long number": b'{"t":' + b"9" * 10_000 + b"}",
    "nul": b'{"email":"a\\u0000@example.org","password":"\\u0000","thing_name":"\\u0000",'
    b'"token":"\\u0000","name":"\\u0000","label":"\\u0000","first_name":"\\u0000","t":"\\u0000"}',
    "raw nul": b'{"email":"\x00"}\x00',
    "lone surrogate": b'{"email":"\\ud800@example.org","password":"\\udfff",'
    b'"thing_name":"\\ud800","token":"\\ud800","name":"\\ud800","t":"\\ud800"}',
    "invalid utf-8": b'{"email":"\xff\xfe@example.org","password":"\xc3\x28",'
    b'"thing_name":"\xed\xa0\x80"}',
    "utf-16": '{"email":"a@example.org"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"email":"a@example.org"}',
    "a thousand members": json.dumps({f"k{n}": n for n in range(1000)}).encode(),
    "prototype": b'{"__proto__":{"operator":true},"constructor":{}}',
}  # fmt: skip
PLACES = [
    "%00", "a%00b", "%ff", "%ed%a0%80", "..%2f..%2fetc%2fpasswd", "%0d%0aSet-Cookie:%20x=y",
    "'%20OR%20true--", "9" * 40, "-1", "0x10", "%F0%9F%92%A9", "a" * 5000, "%20", "null",
]  # fmt: skip
VALUES = [
    "\x00", "", " ", "9" * 40, "-1", "1e999", "nan", "'; DROP TABLE account; --", "\ud800", "💩",
    "a" * 3000, "%", "\r\nX-Injected: 1", "(((((((((((a+)+)+)+)+)+)+)+", "9999-12-31T23:59:59Z",
    "-99999999999d", "0001-01-01T00:00:00+23:59",
]  # fmt: skip


class There(dict[str, str]):
    """What a path may name; of what the test does not make, anything."""

    def __missing__(self, name: str) -> str:
        return "1"


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/schema/openapi.json")).json()["paths"]
    return found


def credentials(person: Person) -> dict[str, str]:
    cookie = f"paqett_session={person.client.cookies['paqett_session']}"
    person.client.cookies.clear()
    return {"Cookie": cookie, "X-CSRF-Token": person.csrf}


def refused(answer: httpx.Response, what: str) -> None:
    """A refusal that names its code, or an answer that took what was sent as what it is."""
    assert answer.status_code < 500, f"{what}: {answer.text[:200]}"
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", what
        assert answer.json()["code"], what


def test_no_body_is_a_fault_of_ours(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        device = (await person.ask("POST", "/devices", json={"thing_name": "it"})).json()["id"]
        ids = There(device_id=device)
        # what is sent may change the session's own password: each endpoint gets its own person
        tried = set()
        for path, methods in (await document(client)).items():
            for method, operation in methods.items():
                if "requestBody" not in operation:
                    continue
                client.cookies.clear()
                assert (await person.sign_in()).status_code == 200
                headers = credentials(person)
                for kind in operation["requestBody"]["content"]:
                    for name, body in BODIES.items():
                        api.later(timedelta(seconds=7))
                        answer = await client.request(
                            method, path.format_map(ids),
                            content=body, headers={**headers, "Content-Type": kind},
                        )  # fmt: skip
                        refused(answer, f"{method} {path} {kind} {name}")
                        tried.add((method, path))
                    api.later(timedelta(minutes=15))
        assert len(tried) >= 15

    api.run(work)


def test_a_member_given_twice_counts_once_and_as_the_last(api) -> None:
    """RFC 8259 §4 leaves it open: one parser reads every body, so nothing can disagree."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        body = b'{"thing_name":"first","thing_name":"last"}'
        headers = {"X-CSRF-Token": person.csrf, "Content-Type": "application/json"}
        made = await client.post("/api/v1/devices", content=body, headers=headers)
        assert made.json()["thing_name"] == "last"

    api.run(work)


async def asked(
    client: httpx.AsyncClient, api: Any, account_id: int, where: str
) -> list[tuple[str, str, list[str], dict[str, str]]]:
    """Each operation with parameters in path or query: method, path, their names, and who asks."""
    by_key = {"Authorization": f"Bearer {await api.key(account_id)}"}
    by_session = credentials(await new_person(client, api.settings))
    found = []
    for path, methods in (await document(client)).items():
        for method, operation in methods.items():
            names = [p["name"] for p in operation.get("parameters", []) if p["in"] == where]
            who = by_key if "apiKey" in operation["security"][0] else by_session
            if names:
                found.append((method, path, names, who))
    return found


def test_no_path_is_a_fault_of_ours(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        tried = 0
        for method, path, names, who in await asked(client, api, owner.account_id, "path"):
            if (method, path) == ("delete", "/api/v1/sessions/{session_id}"):
                continue
            for place in PLACES:
                url = path
                for name in names:
                    url = url.replace(f"{{{name}}}", place)
                api.later(timedelta(seconds=35))
                answer = await client.request(method, url, headers=who, json={})
                refused(answer, f"{method} {url[:80]}")
                assert answer.status_code >= 400, f"{method} {url[:80]}"
                tried += 1
        assert tried >= 200

    api.run(work)


def test_a_session_is_named_by_a_number_or_not_at_all(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        for place in PLACES:
            answer = await person.ask("DELETE", f"/sessions/{place}")
            assert answer.status_code in (404, 422), place[:40]
        assert (await person.ask("GET", "/account")).status_code == 200

    api.run(work)


def test_no_parameter_is_a_fault_of_ours(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        tried = 0
        for method, path, names, who in await asked(client, api, owner.account_id, "query"):
            url = path.format_map(There(device_id=owner.devices[0]))
            for name in names:
                for value in VALUES:
                    sent = quote(value, errors="surrogatepass")
                    answer = await client.request(method, f"{url}?{name}={sent}", headers=who)
                    refused(answer, f"{method} {path} {name}={value[:40]!r}")
                    tried += 1
        assert tried >= 300

    api.run(work)


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", b"Bearer \xff\xfe"),
        ("Authorization", b"Basic \xff\xff\xff"),
        ("Authorization", b"Basic OjpcMA=="),
        ("Authorization", b"Basic /////w=="),
        ("Authorization", b"Bearer " + b"pqt_" * 5000),
        ("Authorization", b" "),
        ("Cookie", b"paqett_session=\xff; \x7f=;;;="),
        ("Cookie", b"paqett_session=" + b"x" * 8000),
        ("X-CSRF-Token", b"\xff\xfe"),
        ("Content-Type", b"\xff/\xfe; charset=\x80"),
        ("Content-Type", b"application/json; charset=utf-7"),
        ("Content-Encoding", b"gzip, gzip, br"),
        ("User-Agent", b"\xff\xfe" * 2000),
        ("Accept", b"\xff;q=nan"),
        ("If-Modified-Since", b"never"),
        ("Range", b"bytes=-1-0-9"),
    ],
    ids=lambda pair: f"{pair[0]} {pair[1][:12]!r}",
)
def test_no_header_is_a_fault_of_ours(api, owner, header) -> None:
    name, value = header

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        device = f"/api/v1/devices/{owner.devices[0]}/telemetry"
        own = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        login = {"email": person.email, "password": person.password}
        for method, url, headers, body in (
            ("GET", "/api/v1/account", {}, None),
            ("PATCH", "/api/v1/account", {"X-CSRF-Token": person.csrf}, {"surname": "x"}),
            ("POST", device, own, {"t": 1}),
            ("POST", "/api/v1/auth/login", {}, login),
        ):
            sent = {**headers, name: value}
            refused(await client.request(method, url, headers=sent, json=body), f"{method} {url}")

    api.run(work)
