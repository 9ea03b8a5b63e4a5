"""What a stranger or another site would try on the pages, each refused."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from paqett.exports import records
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
