"""What every process tells its operator, and the spans of whoever traces."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from paqett import app, dashboards, db, keys, migrate, ops, tracing
from paqett.errors import ConfigurationError, Unavailable
from paqett.principals import SCOPES
from paqett.web.server import create_app
from paqett.worker import figures, process
from support import Tenant, at, in_database, with_url


class Ticking:
    """A clock that stands until told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(health: ops.Health, path: str) -> tuple[str, Any]:
    """Status and body of the listener's answer."""
    told: list[str] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    parts = ops.application(health)(environ, lambda status, _: told.append(status))
    body = b"".join(parts)
    return told[0], json.loads(body) if path == "/readyz" else body.decode()


def test_a_process_is_ready_once_it_has_said_so_and_while_nothing_has_failed() -> None:
    health = ops.Health(Ticking())
    assert ask(health, "/readyz")[0] == "503 Service Unavailable"
    health.note("spool", "warning", "12 bytes wait")
    status, told = ask(health, "/readyz")
    assert (status, told["status"]) == ("200 OK", "ready")
    assert told["checks"] == [{"name": "spool", "state": "warning", "detail": "12 bytes wait"}]
    health.note("broker", "failed", "away")
    status, told = ask(health, "/readyz")
    assert (status, told["status"]) == ("503 Service Unavailable", "not ready")
    assert ask(health, "/healthz") == ("200 OK", "ok\n"), "a restart would not help"


def test_a_loop_that_does_not_turn_is_neither_ready_nor_alive() -> None:
    clock = Ticking()
    health = ops.Health(clock)
    health.note("broker", "ok", "subscribed")
    clock.now += 31
    assert ask(health, "/healthz") == ("503 Service Unavailable", "hung\n")
    assert ask(health, "/readyz")[1]["status"] == "hung"
    health.beat()
    assert ask(health, "/readyz")[1]["status"] == "ready"


def test_a_loop_that_hangs_shows_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking()
    monkeypatch.setattr(ops, "health", ops.Health(clock))
    assert "\npaqett_process_alive 1.0\n" in ask(ops.health, "/metrics")[1]
    clock.now += 31
    assert "\npaqett_process_alive 0.0\n" in ask(ops.health, "/metrics")[1]


def test_what_retention_cannot_drop_stays_overdue_and_keeps_no_other_tier_waiting(
    database_url: str, owner: Tenant
) -> None:
    def told() -> dict[str, float]:
        rows = re.findall(
            r'paqett_tier_overdue{tier="(\w+)"} (\S+)', ask(ops.health, "/metrics")[1]
        )
        return {tier: float(value) for tier, value in rows}

    async def watch() -> None:
        async with app.services(with_url(database_url), "test") as services:
            await process.watch_retention(services)

    with psycopg.connect(database_url) as conn:
        for tier in ("free", "own"):
            conn.execute(
                f"INSERT INTO telemetry_{tier} VALUES (now() - interval '400 days', %s, 1, 1)",
                (owner.account_id,),
            )
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET lock_timeout = '0.2s'")
        conn.commit()
        conn.execute("SELECT time FROM telemetry_free")
        with pytest.raises(Unavailable):
            asyncio.run(watch())
        assert told() == {"free": 1, "own": 0, "paid": 0}
        conn.rollback()
    asyncio.run(watch())
    assert told() == {"free": 0, "own": 0, "paid": 0}


def test_a_role_may_look_at_what_its_process_tells(bare_database_url: str, server_url: str) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE \"{name}_worker\" PASSWORD 'w'")
    host = at(server_url, name).rpartition("@")[2]
    settings = with_url(f"postgresql://{name}_worker:w@{host}")

    async def work() -> None:
        async with app.services(settings, "worker") as services:
            await figures.look(services)
            await figures.look_at_tables(services)
            await figures.look_at_schema(services)

    asyncio.run(work())
    text = ask(ops.health, "/metrics")[1]
    assert 'paqett_table_bytes{table="telemetry_own"}' in text
    assert 'paqett_database_transactions_total{outcome="committed"}' in text
    assert ("database", "ok") in {(check.name, check.state) for check in ops.health.checks}


def test_the_operators_dashboard_is_not_given_to_accounts() -> None:
    assert not {"operators.json", "paqett-prometheus.yaml"} & dashboards.shipped().keys()
    assert "overview.json" in dashboards.shipped()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is traced while a test runs."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        tracing.configure(on=True)
    yield kept
    tracing.configure(on=False)
    provider.shutdown()


def requests_of(url: str, owner: Tenant, **headers: str) -> list[httpx.Response]:
    """A reading sent and the devices asked for, by the account's key; and somebody without one."""
    settings = with_url(url, PAQETT_HTTP__TRUSTED_PROXIES="127.0.0.1")
    answers: list[httpx.Response] = []

    async def work() -> None:
        async with app.services(settings, "test") as services:
            application = create_app(services)
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                key = await keys.create(conn, owner.account_id, "k", sorted(SCOPES), None, None)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                bearer = {"Authorization": f"Bearer {key.key}", **headers}
                path = f"/api/v1/devices/{owner.devices[0]}/telemetry"
                answers.append(await client.post(path, json={"t": 1}, headers=bearer))
                answers.append(await client.get("/api/v1/alerts", headers=bearer))
                answers.append(await client.get("/api/v1/devices"))
            await application.state.door.close()
            await application.state.hub.close()

    asyncio.run(work())
    return answers


def test_requests_and_flushes_are_spans_of_the_trace_a_trusted_proxy_names(
    database_url: str, owner: Tenant, spans: InMemorySpanExporter
) -> None:
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    answers = requests_of(database_url, owner, traceparent=f"00-{trace_id}-{parent}-01")
    found = {span.name: span for span in spans.get_finished_spans()}
    request = found["POST /api/v1/devices/{device_id}/telemetry"]
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == trace_id
    assert request.attributes == {
        "paqett.request_id": answers[0].headers["x-request-id"],
        "http.request.method": "POST",
        "http.route": "/api/v1/devices/{device_id}/telemetry",
        "http.response.status_code": 200,
    }
    assert found["flush"].attributes == {"paqett.messages": 1, "paqett.stored": 1}
    assert found["GET /api/v1/devices"].parent is None, "a stranger begins a trace of its own"


def test_a_span_names_an_exception_and_repeats_none_of_its_words(
    spans: InMemorySpanExporter,
) -> None:
    with pytest.raises(ValueError, match="ada@"), tracing.span("job", attempt=1):
        raise ValueError("ada@example.org")
    (span,) = spans.get_finished_spans()
    assert (span.status.description, span.events) == ("ValueError", ())


def test_nothing_is_traced_unless_asked_for(database_url: str, owner: Tenant) -> None:
    with tracing.span("anything") as span:
        assert span is tracing.NOTHING
    assert requests_of(database_url, owner)[0].status_code == 200


def test_tracing_without_opentelemetry_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install paqett\[tracing\]"):
        tracing.configure(on=True)


def test_a_requests_lines_carry_its_number_and_its_account(
    database_url: str, owner: Tenant
) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answers = requests_of(database_url, owner)
    flushed, *_ = [line for line in lines if line["event"] == "request"]
    assert flushed["request_id"] == answers[0].headers["x-request-id"]
    assert flushed["account"] == owner.account_id
    last = [line for line in lines if line.get("request_id") == answers[2].headers["x-request-id"]]
    assert last
    assert {line.get("account") for line in last} == {None}, "a stranger's are nobody's"
