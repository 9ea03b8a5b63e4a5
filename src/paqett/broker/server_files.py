"""Configuration of a broker that the operator runs: templates in `config/`, filled in."""

import hmac
import re
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from paqett.broker import files
from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError
from paqett.mqtt import access
from paqett.settings import SHORTEST_SECRET, Mqtt, Settings, config_dir

_FILES = {
    "rabbitmq": ("rabbitmq.conf", "enabled_plugins"),
    "emqx": ("emqx.conf", "users.csv"),
}
# as such it stands in an address, or unquoted in a configuration
_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
_MOST_PREFETCH = 65535
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]/_~-]+")
_PATH = re.compile(r"/[A-Za-z0-9._/~-]+")


def check(settings: Settings) -> None:
    """Raises `ConfigurationError` where a RabbitMQ or EMQX could not be used with these."""
    broker, mqtt = settings.broker, settings.mqtt
    if broker.kind == "mosquitto":
        raise ConfigurationError(
            "broker.kind is mosquitto: `paqett broker` writes its files itself"
        )
    if len(broker.auth_secret) < SHORTEST_SECRET or not _PLAIN.fullmatch(broker.auth_secret):
        raise ConfigurationError(
            f"broker.auth_secret needs {SHORTEST_SECRET} letters and digits or more: whoever"
            " knows it may ask which devices' secrets are right"
        )
    _check_platform(mqtt)
    _check_asked(settings)
    url = urlsplit(broker.management_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigurationError(
            "broker.management_url is where the broker's connections are closed"
        )
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ConfigurationError("broker.management_url is sent a password: https beyond loopback")
    if broker.kind == "emqx" and not broker.management_key:
        raise ConfigurationError("broker.management_key and _secret: EMQX's API takes its own keys")
    if broker.kind == "rabbitmq" and mqtt.share_group:
        raise ConfigurationError("mqtt.share_group: RabbitMQ has no shared subscriptions for MQTT")


def _check_platform(mqtt: Mqtt) -> None:
    """The platform's user reads and writes everything, and devices' listeners know it too."""
    for name, text in (("mqtt.username", mqtt.username), ("mqtt.password", mqtt.password)):
        if not _PLAIN.fullmatch(text):
            raise ConfigurationError(f"{name} has to be letters, digits and . _ ~ - alone")
    if access.DEVICE_ID.fullmatch(mqtt.username):
        raise ConfigurationError("mqtt.username needs a dot, which no device's id has")
    if len(mqtt.password) < SHORTEST_SECRET:
        raise ConfigurationError(
            f"mqtt.password needs {SHORTEST_SECRET} characters or more: this broker lets its user"
            " in at every listener, devices' too"
        )


def _check_asked(settings: Settings) -> None:
    """Devices' secrets go to our API, and the secret that opens it."""
    url = urlsplit(_asked(settings))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigurationError("broker.auth_url is where the broker finds our API")
    if not _ADDRESS.fullmatch(_asked(settings)):
        raise ConfigurationError("broker.auth_url is an address alone, without name or question")
    if url.scheme == "http" and url.hostname not in LOOPBACK and not settings.http.allow_plain:
        raise ConfigurationError(
            f"broker.auth_url is {url.scheme}://{url.hostname}: devices' secrets are sent there, so"
            " https beyond loopback (or http.allow_plain = true)"
        )
    if url.scheme == "https" and not _PATH.fullmatch(settings.broker.auth_ca_file):
        raise ConfigurationError(
            "broker.auth_ca_file names who vouches for the API's certificate, as a whole path on"
            " the broker's machine"
        )


def _asked(settings: Settings) -> str:
    return (settings.broker.auth_url or settings.public_url).rstrip("/")


def write(settings: Settings, folder: Path) -> list[Path]:
    """Write the files of `broker.kind`, mode 0600; their paths. Raises `ConfigurationError`."""
    texts = render(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.replace(folder / name, text)
    return [folder / name for name in texts]


def render(settings: Settings) -> dict[str, str]:
    """The files' texts by name. Raises `ConfigurationError`."""
    check(settings)
    files.check_plain(settings.broker)
    kind = settings.broker.kind
    values = _rabbitmq(settings) if kind == "rabbitmq" else _emqx(settings)
    folder = config_dir() / kind
    return {name: Template((folder / name).read_text()).substitute(values) for name in _FILES[kind]}


def _common(settings: Settings) -> dict[str, object]:
    broker, mqtt = settings.broker, settings.mqtt
    return {
        "listen": f"{broker.listen_host}:{broker.listen_port}",
        "platform": f"127.0.0.1:{mqtt.port}",
        "username": mqtt.username,
        "password": mqtt.password,
        "auth": f"{_asked(settings)}/hooks/broker/{broker.auth_secret}",
        "max_packet_bytes": broker.max_packet_bytes,
    }


def _certificate(settings: Settings) -> tuple[str, str]:
    broker = settings.broker
    if not (broker.tls_cert_file and broker.tls_key_file):
        raise ConfigurationError("broker.tls_port needs broker.tls_cert_file and tls_key_file")
    for name in (broker.tls_cert_file, broker.tls_key_file):
        if not _PATH.fullmatch(name):
            raise ConfigurationError(f"{name!r} has to be a whole path, of plain letters")
    return broker.tls_cert_file, broker.tls_key_file


def _rabbitmq(settings: Settings) -> dict[str, object]:
    broker, mqtt = settings.broker, settings.mqtt
    values = _common(settings)
    listeners = []
    if mqtt.host in LOOPBACK and mqtt.port not in (broker.listen_port, broker.tls_port):
        listeners.append(f"mqtt.listeners.tcp.platform = {values['platform']}")
    if broker.tls_port:
        cert, key = _certificate(settings)
        listeners += [
            f"mqtt.listeners.ssl.devices = {broker.tls_port}",
            f"ssl_options.certfile = {cert}",
            f"ssl_options.keyfile = {key}",
            "ssl_options.versions.1 = tlsv1.3",
            "ssl_options.versions.2 = tlsv1.2",
        ]
    return values | {
        "listeners": "\n".join(listeners),
        "auth_tls": _RABBITMQ_ASKS_TLS.format(ca=broker.auth_ca_file) if _by_tls(values) else "",
        "prefetch": min(mqtt.receive_maximum, _MOST_PREFETCH),
        "disk_free_limit": settings.ingest.spool_min_free_bytes,
        "management_port": urlsplit(broker.management_url).port or 15672,
    }


def _emqx(settings: Settings) -> dict[str, object]:
    broker = settings.broker
    tls = "listeners.ssl.default.enable = false\n"  # it listens everywhere, unless told otherwise
    if broker.tls_port:
        cert, key = _certificate(settings)
        tls = _EMQX_TLS.format(port=broker.tls_port, cert=cert, key=key)
    values = _common(settings)
    ask = _EMQX_ASKS_TLS.format(ca=broker.auth_ca_file) if _by_tls(values) else ""
    cookie = hmac.digest(broker.auth_secret.encode(), b"emqx's cookie", "sha256").hex()
    port = urlsplit(broker.management_url).port or 18083
    return values | {"tls": tls, "auth_tls": ask, "cookie": cookie, "management_port": port}


def _by_tls(values: dict[str, object]) -> bool:
    return str(values["auth"]).startswith("https:")


# neither verifies by itself whom it asks
_RABBITMQ_ASKS_TLS = """\
auth_http.ssl_options.verify = verify_peer
auth_http.ssl_options.cacertfile = {ca}
auth_http.ssl_options.hostname_verification = wildcard
"""
_EMQX_ASKS_TLS = 'ssl {{ enable = true, verify = verify_peer, cacertfile = "{ca}" }}'
_EMQX_TLS = """\
listeners.ssl.default {{
  bind = {port}
  ssl_options {{ certfile = "{cert}", keyfile = "{key}", versions = ["tlsv1.3", "tlsv1.2"] }}
}}
"""
