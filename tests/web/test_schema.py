"""schemathesis against the running API: what it answers is what its OpenAPI document says."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.adapter import v2, v3_0, v3_1

from paqett.passwords import hash_once
from people import PASSWORD, new_person
from site_of_tests import Site


def no_fault(_: Any, response: Any, __: Any) -> None:
    """No 5xx but 501, which an installation answers that cannot do something and says so."""
    assert response.status_code < 500 or response.status_code == 501


CHECKS = [
    no_fault,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EMAIL = "ada@example.org"
# imported here, since Python 3.11 may fail to compile them while hypothesis is at work
ADAPTERS = (v2, v3_0, v3_1)
# what else hypothesis complains of, the server's thread in this process has done
WRONG = (FailureGroup, Failure, AssertionError)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class Running(Site):
    """And a browser of somebody who signs in anew for each operation."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.browser = requests.Session()

    async def _register(self) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client:
            await new_person(client, self.settings, EMAIL)

    def _restore(self) -> None:
        made = asyncio.run(hash_once(self.settings.auth, PASSWORD))
        with psycopg.connect(self.settings.database.url) as conn:
            conn.execute("UPDATE account SET email = %s, password_hash = %s", (EMAIL, made))

    def _login(self) -> requests.Response:
        body = {"email": EMAIL, "password": PASSWORD}
        return self.browser.post(f"{self.url}/api/v1/auth/login", json=body)

    def person(self) -> None:
        """Whoever signs in from now on."""
        asyncio.run(self._register())

    def sign_in(self) -> dict[str, str]:
        """Headers of a new session; an hour after the last, so that no limit is left over."""
        self.ahead += timedelta(hours=1)
        answer = self._login()
        if answer.status_code == 401:  # the last operation changed the password or the address
            self._restore()
            answer = self._login()
        assert answer.status_code == 200, answer.text
        cookie = self.browser.cookies["paqett_session"]
        self.browser.cookies.clear()
        headers = {
            "Cookie": f"paqett_session={cookie}",
            "X-CSRF-Token": answer.json()["csrf_token"],
        }
        if answer.json()["account"]["closing_at"]:  # the last operation deleted the account
            undone = self.browser.post(f"{self.url}/api/v1/account/deletion/undo", headers=headers)
            assert undone.status_code == 200, undone.text
        return headers


@pytest.fixture
def running(database_url: str) -> Iterator[Running]:
    api = Running(database_url)
    with api.running(), api.browser:
        api.person()
        yield api


def real_things(api: Running, session: dict[str, str]) -> dict[str, Any]:
    """One of everything a path may name."""

    def post(path: str, body: Any, headers: dict[str, str] = session) -> Any:
        answer = api.browser.post(f"{api.url}/api/v1{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    device = post("/devices", {"thing_name": f"it {api.ahead}"})["id"]
    post(f"/devices/{device}/telemetry", {"t": 21.5, "on": True, "word": "x"})
    scopes = ["telemetry:read", "telemetry:write", "devices:read", "devices:write", "account:read"]
    key = post("/api-keys", {"name": "k", "scopes": scopes})
    return {
        "device_id": device, "metric": "t", "provider": "github", "key_id": key["id"],
        "session_id": 1, "key": key["key"], "export_id": 1, "channel_id": 0,
    }  # fmt: skip


def exercise(api: Running, operation: Any, examples: int) -> int:
    """Ask one operation `examples` times, by turns with what fits and what does not, for something
    that is there and something made up, as a person and, where one may, with a key."""
    session = api.sign_in()
    there = real_things(api, session)
    by_key = {"Authorization": f"Bearer {there['key']}"}
    declared = operation.definition.raw["security"]
    ways = [session, by_key] if any("apiKey" in way for way in declared) else [session]
    asked = 0

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES)))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        api.ahead += timedelta(seconds=2)
        if asked % 2:
            made_up = case.path_parameters or {}
            case.path_parameters = {k: there.get(k, v) for k, v in made_up.items()}
        case.headers = {**(case.headers or {}), **ways[asked // 2 % len(ways)]}
        case.cookies = {}
        case.call_and_validate(checks=CHECKS, session=api.browser)

    ask()
    return asked


def everything(api: Running, examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"{api.url}/schema/openapi.json")
    asked = operations = 0
    wrong = []
    for found in schema.get_all_operations():
        operations += 1
        operation = found.ok()
        # a stream goes on until its reader leaves
        often = min(examples, 2) if operation.path.endswith("/stream") else examples
        try:
            asked += exercise(api, operation, often)
        except FlakyFailure as flaky:  # an answer that was wrong once is wrong
            wrong += [str(f) for f in flaky.exceptions if isinstance(f, WRONG)]
        except WRONG as failure:
            wrong.append(str(failure))
    assert not wrong, "\n\n".join(wrong)
    assert operations >= 35
    return asked


def test_every_answer_is_what_the_document_says(running: Running) -> None:
    assert everything(running, 8) >= 250


@pytest.mark.prove
def test_every_answer_is_what_the_document_says_at_length(
    running: Running, record_testsuite_property: Callable[[str, object], None]
) -> None:
    asked = everything(running, 500)
    record_testsuite_property("schemathesis requests", asked)
    assert asked >= 10_000
