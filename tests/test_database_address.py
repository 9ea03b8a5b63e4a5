"""The way to a database on another machine: by TLS that proves itself, or as it says."""

import asyncio
import socket
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from paqett import db
from paqett.cli import main
from paqett.errors import ConfigurationError
from support import with_url

ELSEWHERE = "postgresql://paqett_api:hidden@db.example.org:5432/paqett"


@pytest.fixture(autouse=True)
def nothing_of_this_machines_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGHOST", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def asked(url: str) -> dict[str, object]:
    return conninfo_to_dict(db.require_url(with_url(url).database))


@pytest.mark.parametrize(
    "url",
    [
        ELSEWHERE,
        "host=db.example.org dbname=paqett",
        "postgresql://paqett@127.0.0.1,db.example.org/paqett",
        "postgresql:///paqett?host=192.0.2.1",
        "postgresql://paqett@localhost/paqett?hostaddr=192.0.2.1",
    ],
)
def test_another_machine_must_prove_who_it_is(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    found = asked(url)
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", str(authorities))
    without = {name: text for name, text in found.items() if not name.startswith("ssl")}
    assert without == conninfo_to_dict(url)
    named = asked(f"{url}{'&' if '?' in url else '?'}sslrootcert=/own.pem") if "://" in url else {}
    assert named.get("sslrootcert", "/own.pem") == "/own.pem"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://paqett@127.0.0.1:5432/paqett",
        "postgresql://paqett@[::1]/paqett",
        "postgresql:///paqett?host=/run/postgresql&user=postgres",
        "postgresql:///paqett",
        f"{ELSEWHERE}?sslmode=disable",
        f"{ELSEWHERE}?sslmode=verify-ca",
    ],
)
def test_this_machine_and_whoever_says_how_are_left_alone(url: str) -> None:
    assert db.require_url(with_url(url).database) == url


def test_a_server_without_tls_hears_neither_name_nor_password() -> None:
    heard = bytearray()

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(8)  # may we speak TLS?
            connection.sendall(b"N")
            while part := connection.recv(1000):
                heard.extend(part)

    with socket.create_server(("127.0.0.9", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        url = f"postgresql://paqett_api:hidden@127.0.0.9:{server.getsockname()[1]}/paqett"
        with pytest.raises(psycopg.OperationalError, match="SSL"):
            asyncio.run(db.connect(with_url(url).database, "test"))
        thread.join(10)
    assert heard == b""


@pytest.mark.parametrize("name", ["PAQETT_DATABASE__URL", "PAQETT_DATABASE__REPLICA_URL"])
def test_a_password_with_which_an_address_cannot_be_read_is_not_told(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "postgresql://paqett_api:to%psecret@127.0.0.1:1/paqett"
    monkeypatch.setenv("PAQETT_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv(name, wrong)
    with pytest.raises(ConfigurationError):
        db.require_url(with_url("postgresql:///x", **{name: wrong}).database)
    assert main(["api"]) == 2
    said = capsys.readouterr()
    assert "database.url" in said.err
    assert "psecret" not in said.out + said.err
