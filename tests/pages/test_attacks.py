"""What a stranger or another site would try on the pages, each refused."""

import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from litestar.handlers import HTTPRouteHandler

from paqett.exports import records
from paqett.web.pages import routes
from site_of_tests import Member, Site


@pytest.fixture(scope="module")
def site(site_url: str, api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a data folder, where archives lie."""
    folder = tmp_path_factory.mktemp("data")
    with Site(site_url, api_url, PAQETT_PAQETT__DATA_DIR=str(folder)).running() as running:
        yield running


def raw(site: Site, target: bytes, host: bytes) -> bytes:
    """The answer to a request no client library would send."""
    where = urlsplit(site.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=10) as line:
        line.sendall(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
            % (target, host)
        )
        return b"".join(iter(lambda: line.recv(65_536), b""))


@pytest.mark.parametrize("target", [b"/", b"/settings", b"/nowhere", b"/api/v1/account"])
def test_no_name_of_a_host_is_a_fault_of_ours(site: Site, target: bytes) -> None:
    for host in (b"x:notaport", b"x:99999", b"[", b"a@b", b"", b"evil.example/settings?"):
        answer = raw(site, target, host)
        assert not answer.startswith(b"HTTP/1.1 5"), host
        assert b"x-content-type-options: nosniff" in answer, host
        assert b"evil.example" not in answer, host


def test_no_query_is_a_fault_of_ours(site: Site) -> None:
    for target in (b"/settings?\xff", b"/nowhere?%ff\xc3", b"/settings?a=%00"):
        answer = raw(site, target, b"localhost")
        assert not answer.startswith(b"HTTP/1.1 5"), target
    assert raw(site, b"/settings?a=%26b", b"localhost").count(b"next=/settings%3Fa%3D%2526b") == 1


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "", "http:", "x"])
def test_a_form_of_an_origin_that_is_none_is_refused(site: Site, origin: str) -> None:
    with site.client() as client:
        fields = {"email": "x@example.org", "password": "x"}
        answer = client.post("/sign-in", data=fields, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "another site" in answer.text


def test_a_number_that_is_too_large_names_nothing(site: Site, owner: Member) -> None:
    for number in (2**31, 2**63, 10**30):
        for path in (f"/alerts?rule={number}", f"/alerts/rules/{number}"):
            assert site.get(path, owner).status_code in (404, 422), path
        assert site.get(f"/settings/export/{number}/download", owner).status_code == 404


def test_a_number_of_thousands_of_digits_is_no_fault_of_ours(site: Site, owner: Member) -> None:
    digits = "1" * 5000
    for path in (
        f"/alerts?rule={digits}", f"/alerts/rules/{digits}", f"/explore?saved={digits}",
        f"/devices?page={digits}", f"/notices?cursor={digits}", f"/charts/data?points={digits}",
    ):  # fmt: skip
        assert site.get(path, owner).status_code in (404, 422), path[:20]
    for path in (f"/settings/keys/{digits}/delete", f"/settings/sessions/{digits}/end"):
        assert site.post(path, owner).status_code in (404, 422), path[:20]
    fields = {"thing_name": "x", "report_interval": digits}
    refused = site.post("/devices/new", owner, **fields)
    assert refused.status_code == 422
    assert "a number of seconds" in refused.text
    rule = {"kind": "threshold", "name": "x", "metric": "t", "operator": ">", "for": f"{digits}s"}
    for wrong in ({"threshold": digits}, {"threshold": "1", "clear": digits}, {"threshold": "1"}):
        answer = site.post("/alerts/rules/new", owner, **{**rule, **wrong})
        assert answer.status_code == 422, wrong


def test_nothing_of_a_person_stays_in_a_cache(site: Site, owner: Member) -> None:
    """An archive holds everything, and browsers and proxies keep what nobody told them not to."""
    (number,) = site.rows(
        "INSERT INTO export (account_id, format, status, created_at, expires_at, bytes, sha256)"
        " VALUES (%s, 'ndjson', 'ready', now(), now() + interval '1 day', 3, 'abc') RETURNING id",
        owner.id,
    )[0]
    path = records.file_of(site.settings.export_dir, owner.id, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"zip")
    for page in (
        f"/settings/export/{number}/download", f"/api/v1/account/exports/{number}/download",
        "/settings", "/settings/keys", "/settings/plan", "/alerts", "/notices", "/docs",
    ):  # fmt: skip
        answer = site.get(page, owner)
        assert answer.headers["cache-control"] == "no-store", page
    part = site.get(f"/settings/export/{number}/download", owner, headers={"Range": "bytes=1-"})
    assert (part.status_code, part.content, part.headers["cache-control"]) == (
        206,
        b"ip",
        "no-store",
    )


def pages(method: str, *, session: bool) -> list[tuple[str, HTTPRouteHandler]]:
    """Every page of ours that takes `method`, its parameters filled in."""
    return [
        (re.sub(r"\{\w+:(\w+)\}", lambda kind: "1" if kind[1] == "int" else "x", path), handler)
        for handler in routes.PAGES
        for path in sorted(handler.paths)
        if method in handler.http_methods and bool(handler.opt.get("session")) is session
    ]


def test_no_form_of_any_page_is_taken_from_another_site(site: Site, owner: Member) -> None:
    """With the session's token, too: whoever has learnt it is still another site."""
    foreign = ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"})
    forms = pages("POST", session=True)
    assert len(forms) > 30
    with site.client(owner) as client:
        for path, _ in [*forms, *pages("POST", session=False)]:
            for headers in foreign:
                answer = client.post(path, data={"csrf_token": owner.csrf}, headers=headers)
                assert (answer.status_code, "another site" in answer.text) == (403, True), path
        for path, _ in forms:
            for fields in ({}, {"csrf_token": "0" * 64}, {"csrf_token": owner.csrf[:-1]}):
                assert client.post(path, data=fields).status_code == 403, path


def test_no_other_method_and_no_key_gets_past_a_page(site: Site, owner: Member) -> None:
    with site.client(owner) as client:
        for path, _ in pages("GET", session=True):
            for method in ("HEAD", "PUT", "DELETE", "PATCH"):
                assert client.request(method, path).status_code in (404, 405), path
            sent = {"Authorization": f"Bearer pqt_{'0' * 43}"}
            assert client.get(path, headers=sent).status_code == 303, path


@pytest.mark.parametrize("state", ["disabled_at", "closing_at"])
def test_nothing_is_left_of_the_pages_but_leaving(site: Site, state: str) -> None:
    """To operators as well, whose accounts may close like any other."""
    gone = site.member(state.removesuffix("_at"))
    site.rows(f"UPDATE account SET {state} = now(), operator = true WHERE id = %s", gone.id)
    code = f"account_{state.removesuffix('_at')}"
    for method in ("GET", "POST"):
        for path, handler in pages(method, session=True):
            if handler.opt.get("while_disabled"):
                assert "settings" in path or path == "/sign-out", path
                continue
            answer = site.get(path, gone) if method == "GET" else site.post(path, gone)
            assert answer.status_code == 403, path
            assert code in answer.text, path
