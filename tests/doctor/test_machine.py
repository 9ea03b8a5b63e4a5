"""What the doctor says of this machine and its settings: each complaint, and the same when well."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

import papers
from paqett import doctor
from paqett.app import utc_now
from paqett.doctor import users
from paqett.doctor.tls import examine_tls
from paqett.doctor.users import users_finding
from paqett.settings import load

NAME = "iot.example.org"
LIVE = {"PAQETT_STRIPE__SECRET_KEY": "sk_live_x", "PAQETT_STRIPE__WEBHOOK_SECRET": "whsec_x"}
TEST = LIVE | {"PAQETT_STRIPE__SECRET_KEY": "rk_test_x"}
PUBLIC = {"PAQETT_PAQETT__PUBLIC_URL": f"https://{NAME}"}
PROXIED = PUBLIC | {
    "PAQETT_HTTP__HOST": "0.0.0.0", "PAQETT_HTTP__ALLOW_PLAIN": "true",
    "PAQETT_HTTP__TRUSTED_PROXIES": "10.0.0.2",
}  # fmt: skip


def found(subject: str, **environ: str) -> doctor.Finding:
    (finding,) = [one for one in doctor.examine_machine(load(environ)) if one.subject == subject]
    return finding


@pytest.mark.parametrize(
    ("environ", "state", "says"),
    [
        ({}, "ok", "nothing speaks in clear"),
        ({"PAQETT_BROKER__LISTEN_HOST": "0.0.0.0"}, "warning", "MQTT at 0.0.0.0:1883"),
        ({"PAQETT_HTTP__HOST": "192.0.2.1"}, "warning", "HTTP at 192.0.2.1:8080"),
        (
            {"PAQETT_HTTP__HOST": "192.0.2.1", "PAQETT_HTTP__TLS_CERT_FILE": "x"}, "ok",
            "nothing speaks in clear",
        ),
        (PROXIED, "ok", "by the proxies at 10.0.0.2"),
        (PROXIED | {"PAQETT_HTTP__TRUSTED_PROXIES": ""}, "warning", "HTTP at 0.0.0.0:8080"),
        ({"PAQETT_OPS__PORT": "9480", "PAQETT_OPS__HOST": "0.0.0.0"}, "warning", "metrics"),
        ({"PAQETT_OPS__PORT": "9480"}, "ok", "nothing speaks in clear"),
        ({"PAQETT_OPS__TOKEN": "let-me-in"}, "warning", "ops.token is short"),
        ({"PAQETT_OPS__TOKEN": "t" * 64}, "ok", "nothing speaks in clear"),
    ],
)  # fmt: skip
def test_what_speaks_in_clear_beyond_this_machine(environ, state, says) -> None:
    finding = found("listeners", **environ)
    assert (finding.state, says in finding.detail) == (state, True), finding


@pytest.mark.parametrize(
    ("environ", "state", "says"),
    [
        ({}, "ok", "no plans are sold"),
        (TEST, "ok", "test mode"),
        (LIVE | PUBLIC, "ok", "live mode"),
        (LIVE, "failed", "not https"),
        (TEST | PUBLIC, "warning", "nobody pays"),
        (LIVE | PUBLIC | {"PAQETT_STRIPE__SECRET_KEY": "pk_live_x"}, "failed", "sk_live_"),
        (TEST | {"PAQETT_STRIPE__WEBHOOK_SECRET": "we_1x"}, "failed", "whsec_"),
    ],
)
def test_keys_of_stripes_that_are_others_or_of_another_mode(environ, state, says) -> None:
    finding = found("stripe settings", **environ)
    assert (finding.state, says in finding.detail) == (state, True), finding
    assert not any(secret in str(finding) for secret in ("_live_x", "_test_x", "whsec_x"))


@pytest.mark.parametrize(
    ("free_gib", "state"), [(500, "ok"), (4.9, "warning"), (0.5, "failed")]
)  # fmt: skip
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch, free_gib: float, state: str) -> None:
    environ = {"PAQETT_PAQETT__DATA_DIR": str(tmp_path / "data")}
    assert "none of Paqett's folders is here yet" in found("disk", **environ).detail
    (tmp_path / "data").mkdir()
    (tmp_path / "backups").mkdir()

    def usage(folder: Path) -> object:
        return SimpleNamespace(free=int((free_gib if folder.name == "backups" else 900) * 2**30))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    environ["PAQETT_BACKUP__FOLDER"] = str(tmp_path / "backups")
    finding = found("disk", **environ)
    assert (finding.state, "backups" in finding.detail, bool(finding.mend)) == (
        state, True, state != "ok",
    )  # fmt: skip


def tls(folder: Path, cert: Path, key: Path, **environ: str) -> doctor.Finding:
    """Of the broker's certificate."""
    settings = load(
        {
            **PUBLIC,
            "PAQETT_BROKER__TLS_CERT_FILE": str(cert),
            "PAQETT_BROKER__TLS_KEY_FILE": str(key),
            **environ,
        }
    )
    (finding,) = examine_tls(settings, utc_now())
    return finding


def spoilt_key(folder: Path) -> tuple[Path, Path]:
    cert, _ = papers.write(folder, NAME, "one")
    return cert, papers.write(folder, NAME, "another")[1]


def no_pem(folder: Path) -> tuple[Path, Path]:
    cert, key = papers.write(folder, NAME)
    cert.write_text("no certificate")
    return cert, key


def open_key(folder: Path) -> tuple[Path, Path]:
    cert, key = papers.write(folder, NAME)
    key.chmod(0o644)
    return cert, key


WEEK, YEAR = timedelta(days=7), timedelta(days=365)


@pytest.mark.parametrize(
    ("make", "state", "says"),
    [
        (lambda at: papers.write(at, NAME, ends=YEAR), "ok", f"for {NAME}, until 20"),
        (lambda at: papers.write(at, NAME, ends=WEEK), "warning", f"for {NAME}, until 20"),
        (
            lambda at: papers.write(at, NAME, begins=-2 * WEEK, ends=-WEEK), "failed",
            "has expired",
        ),
        (lambda at: papers.write(at, NAME, begins=WEEK, ends=YEAR), "failed", "not good yet"),
        (lambda at: papers.write(at, "other.example.org"), "failed", f"another name than {NAME}"),
        (lambda at: papers.write(at, "192.0.2.1"), "failed", f"another name than {NAME}"),
        (spoilt_key, "failed", "KEY_VALUES_MISMATCH"),
        (no_pem, "failed", "cert"),
        (open_key, "failed", "open to everybody"),
        (lambda at: (at / "none.crt", at / "none.key"), "failed", "No such file"),
    ],
)  # fmt: skip
def test_certificates_that_nobody_should_believe(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], state: str, says: str
) -> None:
    finding = tls(tmp_path, *make(tmp_path))
    assert (finding.subject, finding.state, says in finding.detail) == ("tls mqtt", state, True), (
        finding
    )
    assert bool(finding.mend) == (state != "ok")


def test_whether_strangers_would_believe_it_is_told(tmp_path: Path, monkeypatch) -> None:
    cert, key = papers.write(tmp_path, NAME, ends=YEAR)
    assert "no authority this machine knows" in tls(tmp_path, cert, key).detail
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert "no authority" not in tls(tmp_path, cert, key).detail


def test_addresses_are_names_too_and_the_brokers_own_name_counts(tmp_path: Path) -> None:
    pair = papers.write(tmp_path, "192.0.2.1", ends=YEAR)
    assert tls(tmp_path, *pair, PAQETT_BROKER__PUBLIC_HOST="192.0.2.1").state == "ok"
    nobody = tls(tmp_path, *pair, PAQETT_BROKER__PUBLIC_HOST="0.0.0.0")
    assert (nobody.state, "public_host" in nobody.mend) == ("warning", True)


def test_no_certificate_is_nothing_to_say() -> None:
    assert examine_tls(load({}), utc_now()) == []


def test_processes_that_share_a_user_are_named_where_strangers_come_in() -> None:
    apart = [("api", 64_001), ("worker", 64_002), ("api", 64_001)]
    assert users_finding(apart, public=True).state == "ok"
    assert users_finding([], public=True).detail == "none to be seen here"
    together = [*apart, ("broker", 64_002)]
    finding = users_finding(together, public=True)
    assert (finding.state, finding.detail.partition(":")[0]) == (
        "warning", "broker, worker run as 64002"
    )  # fmt: skip
    assert "docs/upgrades.md" in finding.mend
    assert users_finding(together, public=False).state == "ok", "`paqett up` is for trying"


def test_the_processes_of_this_machine_are_found_with_their_users() -> None:
    argv = ["bash", "-c", "read", "/opt/paqett/bin/paqett", "worker"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, user=64_003) as process:
        assert process.stdin is not None
        assert ("worker", 64_003) in set(users._running())
        process.stdin.close()
