"""The files Mosquitto reads: their text, and how they are replaced."""

from pathlib import Path

import msgspec
import pytest

from paqett.broker import files
from paqett.errors import ConfigurationError
from paqett.settings import Settings, load


@pytest.fixture
def chosen() -> Settings:
    return load({"PAQETT_MQTT__PASSWORD": "writer"})


def test_the_platforms_listener_comes_first_and_only_devices_get_their_username_as_id(
    chosen: Settings, tmp_path: Path
) -> None:
    text = files.mosquitto_conf(chosen.broker, chosen.mqtt, tmp_path, "nobody")
    platform, devices = text.split("\nlistener ")[1:]
    assert platform.startswith("1884 127.0.0.1\n")
    assert "use_username_as_clientid" not in platform
    assert devices.startswith("1883 127.0.0.1\n")
    assert "\nuse_username_as_clientid true\n" in devices


def test_a_tls_listener_binds_ids_too_and_needs_its_certificate(
    chosen: Settings, tmp_path: Path
) -> None:
    bare = msgspec.structs.replace(chosen.broker, tls_port=8883)
    with pytest.raises(ConfigurationError, match="tls_cert_file"):
        files.mosquitto_conf(bare, chosen.mqtt, tmp_path, "nobody")
    full = msgspec.structs.replace(bare, tls_cert_file="/c.pem", tls_key_file="/k.pem")
    tls = files.mosquitto_conf(full, chosen.mqtt, tmp_path, "nobody").split("\nlistener ")[3]
    assert "use_username_as_clientid true" in tls
    assert "certfile /c.pem" in tls


def test_the_platforms_listener_over_tcp_is_loopback_and_takes_the_certificate(
    chosen: Settings, tmp_path: Path
) -> None:
    text = files.mosquitto_conf(chosen.broker, chosen.mqtt, tmp_path, "nobody")
    assert "\nlistener 1884 127.0.0.1\n" in text
    tls = msgspec.structs.replace(chosen.mqtt, tls=True)
    with pytest.raises(ConfigurationError, match=r"mqtt\.tls needs broker\.tls_cert_file"):
        files.mosquitto_conf(chosen.broker, tls, tmp_path, "nobody")
    full = msgspec.structs.replace(chosen.broker, tls_cert_file="/c.pem", tls_key_file="/k.pem")
    platform, devices = files.mosquitto_conf(full, tls, tmp_path, "nobody").split("\nlistener ")[1:]
    assert platform.startswith("1884 127.0.0.1\ncertfile /c.pem\nkeyfile /k.pem\n")
    assert "certfile" not in devices


def test_the_writers_line_changes_and_the_devices_stay(chosen: Settings) -> None:
    old = files.password_file([("dev1", "$7$1$a$b")], "paqett.ingest:old\n")
    new = files.with_writer(old, chosen.mqtt, "paqett.ingest:new\n")
    assert new == "paqett.ingest:new\ndev1:$7$1$a$b\n"
    assert files.with_writer("", chosen.mqtt, "paqett.ingest:new\n") == "paqett.ingest:new\n"


def test_a_platform_without_a_password_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="PAQETT_MQTT__PASSWORD"):
        files.writer_line(load({}).mqtt)


def test_a_replaced_file_is_private_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text("old")
    files.replace(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "passwords.new").symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        files.replace(tmp_path / "passwords", "new")
    assert other.read_text() == "kept"
