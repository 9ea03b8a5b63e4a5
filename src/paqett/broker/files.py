"""The three files Mosquitto reads: configuration, access list, passwords.

Why each option is as it is stands beside it; all of them exist in Mosquitto 2.0.11 and later.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError
from paqett.folders import sync_folder
from paqett.mqtt import access
from paqett.mqtt.credentials import PROBE, probe_secret, verifier
from paqett.settings import Broker, Mqtt

_CONF = """\
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl

persistence true
persistence_location {folder}/
autosave_interval 60
# the default of 1000 loses what waits for a restarting ingest
max_queued_messages 1000000
max_queued_bytes 1073741824
# more than ingest ever leaves unacknowledged; "no limit", which is 0 and 65535, makes Mosquitto
# 2.1 warn of every message
max_inflight_messages 65534
max_packet_size {max_packet_bytes}
# what is written for ingest is in its queue at once, where a killed broker cannot lose it
set_tcp_nodelay true

# standard output would be buffered
log_dest stderr
log_type error
log_type warning
log_type notice
# says when the broker runs; nothing about single messages
log_type information
log_timestamp_format %Y-%m-%dT%H:%M:%SZ
user {user}

# the platform's own listener: loopback, and never a device's
{platform}
listener {listen_port} {listen_host}
# one connection a device, and no device can take another's place or the writer's
use_username_as_clientid true
"""

_TLS = """
listener {tls_port}
use_username_as_clientid true
"""

_CERTIFICATE = """\
certfile {cert}
keyfile {key}
tls_version tlsv1.2
"""

_ACL = """\
user {writer}
topic read paqett/v1/+/#
topic write paqett/v1/+/#
topic read $SYS/broker/#

"""


def mosquitto_conf(broker: Broker, mqtt: Mqtt, folder: Path, user: str) -> str:
    """The configuration. Raises `ConfigurationError` for plain MQTT beyond loopback, unasked."""
    check_plain(broker)
    text = _CONF.format(
        folder=folder, max_packet_bytes=broker.max_packet_bytes, user=user,
        platform=_platform_listener(broker, mqtt),
        listen_port=broker.listen_port, listen_host=broker.listen_host,
    )  # fmt: skip
    if broker.tls_port:
        text += _TLS.format(tls_port=broker.tls_port) + _certificate(broker, "broker.tls_port")
    return text


def check_plain(broker: Broker) -> None:
    """Raises `ConfigurationError` for plain MQTT beyond loopback, unasked."""
    if broker.listen_host not in LOOPBACK and not broker.allow_plain:
        raise ConfigurationError(
            f"broker.listen_host is {broker.listen_host}: MQTT without TLS beyond this machine"
            " needs broker.allow_plain = true (or set broker.tls_port and its certificate)"
        )


def _platform_listener(broker: Broker, mqtt: Mqtt) -> str:
    """On loopback, whatever the devices' listener is."""
    listener = f"listener {mqtt.port} 127.0.0.1\n"
    return listener + _certificate(broker, "mqtt.tls") if mqtt.tls else listener


def _certificate(broker: Broker, what: str) -> str:
    if not (broker.tls_cert_file and broker.tls_key_file):
        raise ConfigurationError(f"{what} needs broker.tls_cert_file and tls_key_file")
    return _CERTIFICATE.format(cert=broker.tls_cert_file, key=broker.tls_key_file)


def access_list(writer: str) -> str:
    """A device writes below its own prefix and reads its own errors; the writer reads all.

    It writes all too: what a deleted device left retained is cleared by an empty message.
    """
    return _ACL.format(writer=writer) + "".join(
        f"pattern {permission} {pattern}\n"
        for permission in access.RULES
        for pattern in access.patterns(permission, "%u")
    )


def password_file(devices: Iterable[tuple[str, str]], writer_line: str) -> str:
    """One `id:verifier` line for each device, and the writer's."""
    return "".join([writer_line, *(f"{device}:{line}\n" for device, line in devices)])


def writer_line(mqtt: Mqtt) -> str:
    """The writer's line, and the probe's. Raises `ConfigurationError` without a password.

    The probe may do what a device of its name might, so that `paqett doctor` can try the rest.
    """
    if not mqtt.password:
        raise ConfigurationError("PAQETT_MQTT__PASSWORD is not set: ingest signs in with it")
    probe = verifier(probe_secret(mqtt.password))
    return f"{mqtt.username}:{verifier(mqtt.password)}\n{PROBE}:{probe}\n"


def with_writer(passwords: str, mqtt: Mqtt, writer: str) -> str:
    """The same password file with the writer's line as it is now."""
    kept = [
        line
        for line in passwords.splitlines(keepends=True)
        if not line.startswith((f"{mqtt.username}:", f"{PROBE}:"))
    ]
    return writer + "".join(kept)


def replace(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write, fsync, rename: Mosquitto never reads half a file. Mode 0600, owned by (uid, gid)."""
    draft = path.with_suffix(".new")
    # the folder belongs to the broker's user, who must not lead us elsewhere
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(draft, flags, 0o600), "w") as file:
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)
