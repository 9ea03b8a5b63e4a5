"""RabbitMQ's and EMQX's configuration, filled in from the settings."""

import re
import stat
from pathlib import Path

import pytest

from paqett.broker import server_files
from paqett.cli import main
from paqett.errors import ConfigurationError
from paqett.settings import Settings, load

GIVEN = {
    "PAQETT_BROKER__AUTH_SECRET": "a" * 40,
    "PAQETT_BROKER__AUTH_URL": "https://paqett.example.org/",
    "PAQETT_BROKER__MANAGEMENT_URL": "http://127.0.0.1:15673",
    "PAQETT_MQTT__PASSWORD": "platform" + "p" * 32,
}


def chosen(kind: str = "rabbitmq", **more: str) -> Settings:
    key = {"PAQETT_BROKER__MANAGEMENT_KEY": "key"} if kind == "emqx" else {}
    return load({"PAQETT_BROKER__KIND": kind, **GIVEN, **key, **more})


def lines(kind: str, name: str, **more: str) -> list[str]:
    text = server_files.render(chosen(kind, **more))[name]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_rabbitmq_asks_our_api_and_keeps_what_it_has_acknowledged() -> None:
    conf = dict(line.split(" = ") for line in lines("rabbitmq", "rabbitmq.conf"))
    assert conf["mqtt.listeners.tcp.devices"] == "127.0.0.1:1883"
    assert conf["mqtt.listeners.tcp.platform"] == "127.0.0.1:1884"
    base = "https://paqett.example.org/hooks/broker/" + "a" * 40
    asked = ("user", "vhost", "resource", "topic")
    assert [conf[f"auth_http.{what}_path"] for what in asked] == [f"{base}/{w}" for w in asked]
    assert conf["mqtt.durable_queue_type"] == "quorum"
    assert conf["mqtt.max_session_expiry_interval_seconds"] == "infinity"
    assert conf["mqtt.retained_message_store"] == "rabbit_mqtt_retained_msg_store_noop"
    assert conf["mqtt.allow_anonymous"] == "false"
    assert conf["auth_backends.1"] == "internal"
    assert conf["auth_backends.2"] == "http"
    assert conf["management.tcp.port"] == "15673"
    assert int(conf["mqtt.prefetch"]) == 20_000
    assert not any("cache" in key for key in conf), "a revoked secret must not live on"


def test_rabbitmq_gets_a_tls_listener_with_its_certificate() -> None:
    tls = {"PAQETT_BROKER__TLS_PORT": "8883"}
    with pytest.raises(ConfigurationError, match="tls_cert_file"):
        server_files.render(chosen(**tls))
    files = {"PAQETT_BROKER__TLS_CERT_FILE": "/c.pem", "PAQETT_BROKER__TLS_KEY_FILE": "/k.pem"}
    found = lines("rabbitmq", "rabbitmq.conf", **tls, **files)
    assert "mqtt.listeners.ssl.devices = 8883" in found
    assert "ssl_options.keyfile = /k.pem" in found


def test_emqx_asks_the_same_and_fixes_devices_client_ids() -> None:
    text = "\n".join(lines("emqx", "emqx.conf"))
    base = "https://paqett.example.org/hooks/broker/" + "a" * 40
    assert f'url = "{base}/user"' in text
    assert f'url = "{base}/topic"' in text
    assert 'body { username = "${username}", password = "${password}" }' in text
    assert "use_username_as_clientid = true" in text.split("mqtt {")[1], "at every listener"
    assert "zones.platform.mqtt.use_username_as_clientid = false" in text
    platform = 'listeners.tcp.platform { bind = "127.0.0.1:1884", zone = platform }'
    assert platform in text
    assert text.count("zone = platform") == 1
    assert "no_match = deny" in text
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")
    assert lines("emqx", "users.csv")[1] == f"paqett.ingest,platform{'p' * 32},true"


def test_emqx_opens_nothing_by_what_it_is_shipped_with() -> None:
    found = lines("emqx", "emqx.conf")
    for kind in ("ssl", "ws", "wss"):
        assert f"listeners.{kind}.default.enable = false" in found
    assert '  listeners.http.bind = "127.0.0.1:15673"' in found
    assert f'  default_password = "{GIVEN["PAQETT_MQTT__PASSWORD"]}"' in found
    (cookie,) = [line for line in found if line.startswith("node.cookie")]
    assert re.fullmatch(r'node\.cookie = "[0-9a-f]{64}"', cookie)
    another = lines("emqx", "emqx.conf", PAQETT_BROKER__AUTH_SECRET="b" * 40)
    assert cookie not in another
    tls = {
        "PAQETT_BROKER__TLS_PORT": "8883", "PAQETT_BROKER__TLS_CERT_FILE": "/c.pem",
        "PAQETT_BROKER__TLS_KEY_FILE": "/k.pem",
    }  # fmt: skip
    assert "  bind = 8883" in lines("emqx", "emqx.conf", **tls)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"PAQETT_BROKER__AUTH_SECRET": "short"}, "auth_secret"),
        ({"PAQETT_BROKER__AUTH_SECRET": "a/" * 20}, "auth_secret"),
        ({"PAQETT_MQTT__PASSWORD": "two words # and a comment"}, r"mqtt\.password"),
        ({"PAQETT_MQTT__PASSWORD": ""}, r"mqtt\.password"),
        ({"PAQETT_MQTT__PASSWORD": "p" * 31}, r"mqtt\.password needs 32"),
        ({"PAQETT_MQTT__USERNAME": "ingest"}, r"mqtt\.username needs a dot"),
        ({"PAQETT_BROKER__AUTH_URL": "http://api.example.org"}, "https beyond loopback"),
        ({"PAQETT_BROKER__AUTH_URL": "ftp://127.0.0.1"}, "auth_url"),
        ({"PAQETT_BROKER__AUTH_URL": "https://name:word@127.0.0.1"}, "address alone"),
        ({"PAQETT_BROKER__AUTH_URL": "http://127.0.0.1/\nlog.level = debug"}, "address alone"),
        ({"PAQETT_BROKER__AUTH_CA_FILE": ""}, "auth_ca_file"),
        ({"PAQETT_BROKER__AUTH_CA_FILE": "/ca.pem\nlog.level = debug"}, "auth_ca_file"),
        ({"PAQETT_BROKER__MANAGEMENT_URL": ""}, "management_url"),
        ({"PAQETT_BROKER__MANAGEMENT_URL": "http://broker.example.org:15672"}, "https"),
        ({"PAQETT_MQTT__SHARE_GROUP": "g"}, "shared subscriptions"),
        ({"PAQETT_BROKER__LISTEN_HOST": "0.0.0.0"}, "allow_plain"),
        ({"PAQETT_BROKER__KIND": "mosquitto"}, "mosquitto"),
        ({"PAQETT_BROKER__KIND": "emqx"}, "management_key"),
    ],
)
def test_what_would_not_be_safe_is_refused(more: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        server_files.render(chosen(**more))


def test_whoever_is_asked_over_tls_must_prove_who_they_are() -> None:
    conf = dict(line.split(" = ") for line in lines("rabbitmq", "rabbitmq.conf"))
    assert conf["auth_http.ssl_options.verify"] == "verify_peer"
    assert conf["auth_http.ssl_options.cacertfile"] == "/etc/ssl/certs/ca-certificates.crt"
    assert conf["auth_http.ssl_options.hostname_verification"] == "wildcard"
    own = {"PAQETT_BROKER__AUTH_CA_FILE": "/etc/own.pem"}
    emqx = [line.strip() for line in lines("emqx", "emqx.conf", **own)]
    asks = 'ssl { enable = true, verify = verify_peer, cacertfile = "/etc/own.pem" }'
    assert emqx.count(asks) == 2
    here = {"PAQETT_BROKER__AUTH_URL": "http://[::1]:8080"}
    assert not any("ssl" in line for line in lines("rabbitmq", "rabbitmq.conf", **here))
    assert not any("verify" in line for line in lines("emqx", "emqx.conf", **here))


def test_plain_http_to_the_api_beyond_this_machine_is_an_explicit_choice() -> None:
    plain = {"PAQETT_BROKER__AUTH_URL": "http://api:8080", "PAQETT_HTTP__ALLOW_PLAIN": "true"}
    found = lines("rabbitmq", "rabbitmq.conf", **plain)
    assert f"auth_http.user_path = http://api:8080/hooks/broker/{'a' * 40}/user" in found


def test_the_command_writes_files_that_only_their_owner_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in GIVEN.items():
        monkeypatch.setenv(name, text)
    assert main(["broker", "--write-config", str(tmp_path)]) == 2
    assert "broker.kind is mosquitto" in capsys.readouterr().err
    monkeypatch.setenv("PAQETT_BROKER__KIND", "rabbitmq")
    assert main(["broker", "--write-config", str(tmp_path)]) == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"rabbitmq.conf": 0o600, "enabled_plugins": 0o600}
    assert "rabbitmq_auth_backend_http" in (tmp_path / "enabled_plugins").read_text()
