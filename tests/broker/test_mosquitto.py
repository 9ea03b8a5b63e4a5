"""A real Mosquitto on our files: a device stays within its prefix, its place and its secret."""

import asyncio
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import gmqtt
import msgspec
import pytest

from paqett.broker import files
from paqett.children import die_with_parent, give, service_user
from paqett.errors import ConfigurationError
from paqett.mqtt.consumer import Consumer, Message
from paqett.mqtt.credentials import matches, verifier, writer_client_id
from paqett.mqtt.publisher import Publisher
from paqett.settings import Settings, load
from ports import free_port

DEADLINE_S = 60.0


class Broker:
    """A Mosquitto with two devices, a and b, whose secrets are `a` and `b`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = free_port(19100)
        self.settings: Settings = load(
            {
                "PAQETT_MQTT__PASSWORD": "writer",
                "PAQETT_MQTT__PORT": str(port),
                "PAQETT_BROKER__LISTEN_PORT": str(free_port(port + 1)),
            }
        )
        self.lines = {"a": verifier("a"), "b": verifier("b")}
        self.writer_line = files.writer_line(self.settings.mqtt)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.settings.broker.listen_port

    def write(self) -> None:
        user = service_user("mosquitto")
        give(self.folder, user)
        conf = files.mosquitto_conf(
            self.settings.broker, self.settings.mqtt, self.folder, user or "nobody"
        )
        passwords = files.password_file(self.lines.items(), self.writer_line)
        for name, text in (
            ("mosquitto.conf", conf),
            ("acl", files.access_list(self.settings.mqtt.username)),
            ("passwords", passwords),
        ):
            files.replace(self.folder / name, text)
            give(self.folder / name, user)

    def start(self) -> None:
        self.write()
        self.process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(self.folder / "mosquitto.conf")],
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL, service_user("mosquitto")),
        )

    def reload(self) -> None:
        self.write()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="paqett-mq-", dir="/var/tmp") as folder:
        broker = Broker(Path(folder))
        broker.start()
        yield broker
        broker.kill()


async def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class Writer:
    """The platform's consumer and what it received."""

    def __init__(self, broker: Broker, *, acknowledge: bool = True) -> None:
        self.got: list[Message] = []
        self.acknowledge = acknowledge
        self.consumer = Consumer(
            broker.settings.mqtt, writer_client_id("writer"), ["paqett/v1/+/#"], self._take
        )
        self.task: asyncio.Task[None] | None = None

    def _take(self, message: Message) -> None:
        self.got.append(message)
        if self.acknowledge:
            self.consumer.acknowledge((message,))

    async def start(self) -> None:
        self.task = asyncio.create_task(self.consumer.run())
        await until(lambda: self.consumer.connected)
        await asyncio.sleep(0.2)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.got]


async def device(broker: Broker, name: str, *, client_id: str = "anything") -> gmqtt.Client:
    for _ in range(100):
        client = gmqtt.Client(client_id)
        client.set_config({"reconnect_retries": 0})
        client.set_auth_credentials(name, name)
        try:
            await client.connect("127.0.0.1", broker.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return client
    raise AssertionError("the broker did not start")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_device_publishes_below_its_own_prefix_and_nowhere_else(broker: Broker) -> None:
    async def work() -> None:
        writer = Writer(broker)
        client = await device(broker, "a")
        await writer.start()
        for topic in ("paqett/v1/b/telemetry", "paqett/v1/telemetry", "other", "$SYS/x"):
            client.publish(topic, b"forged", qos=1)
        client.publish("paqett/v1/a/telemetry", b"own", qos=1)
        await until(lambda: bool(writer.got))
        await asyncio.sleep(0.3)
        assert writer.payloads() == [b"own"]
        await client.disconnect()
        await writer.stop()

    run(work)


def test_a_device_reads_nothing_of_another(broker: Broker) -> None:
    async def work() -> None:
        heard: list[str] = []
        spy = await device(broker, "b")
        spy.on_message = lambda _c, topic, *_: heard.append(topic) or 0
        for topic in ("#", "paqett/v1/+/telemetry", "paqett/v1/a/#", "$share/x/paqett/v1/#"):
            spy.subscribe(topic, qos=1)
        writer = Writer(broker)
        await writer.start()
        client = await device(broker, "a")
        for _ in range(20):
            client.publish("paqett/v1/a/telemetry", b"secret", qos=1)
        await until(lambda: len(writer.got) == 20)
        await asyncio.sleep(0.3)
        assert heard == []
        await spy.disconnect()
        await client.disconnect()
        await writer.stop()

    run(work)


def test_a_device_hears_of_its_own_errors_only(broker: Broker) -> None:
    async def work() -> None:
        heard: list[bytes] = []
        client = await device(broker, "a")
        client.on_message = lambda _c, _topic, payload, *_: heard.append(payload) or 0
        client.subscribe("paqett/v1/+/errors", qos=1)
        writer = Writer(broker)
        await writer.start()
        writer.consumer.publish("paqett/v1/b/errors", b"of b")
        writer.consumer.publish("paqett/v1/a/errors", b"of a")
        await until(lambda: bool(heard))
        await asyncio.sleep(0.3)
        assert heard == [b"of a"]
        await writer.stop()
        await client.disconnect()

    run(work)


def test_a_device_cannot_take_the_writers_place(broker: Broker) -> None:
    async def work() -> None:
        writer = Writer(broker)
        client = await device(broker, "a", client_id=writer_client_id("writer"))
        await writer.start()
        thief = await device(broker, "b", client_id=writer_client_id("writer"))
        client.publish("paqett/v1/a/telemetry", b"still here", qos=1)
        await until(lambda: bool(writer.got))
        assert writer.consumer.connections == 1
        await client.disconnect()
        await thief.disconnect()
        await writer.stop()

    run(work)


def test_a_device_whose_secret_changed_is_cut_off(broker: Broker) -> None:
    async def work() -> None:
        client = await device(broker, "a")
        other = await device(broker, "b")
        lost = asyncio.Event()
        client.on_disconnect = lambda *_: lost.set()
        broker.lines["a"] = verifier("new")
        broker.reload()
        await asyncio.wait_for(lost.wait(), 1)
        assert other.is_connected
        await other.disconnect()

    run(work)


def test_what_was_not_acknowledged_comes_again_and_an_old_acknowledgement_is_not_sent(
    broker: Broker,
) -> None:
    async def work() -> None:
        client = await device(broker, "a")
        first = Writer(broker, acknowledge=False)
        await first.start()
        for number in range(5):
            client.publish("paqett/v1/a/telemetry", str(number).encode(), qos=1)
        await until(lambda: len(first.got) == 5)
        kept = list(first.got)
        await first.stop()
        second = Writer(broker, acknowledge=False)
        await second.start()
        await until(lambda: len(second.got) == 5)
        second.consumer.acknowledge(kept)
        assert second.consumer.stale_acknowledgements == 5
        await second.stop()
        third = Writer(broker)
        await third.start()
        await until(lambda: len(third.got) == 5)
        await third.stop()
        await client.disconnect()

    run(work)


def test_more_than_a_thousand_messages_wait_for_an_absent_writer(broker: Broker) -> None:
    async def work() -> None:
        client = await device(broker, "a")
        writer = Writer(broker)
        await writer.start()
        await writer.stop()
        for number in range(3000):
            client.publish("paqett/v1/a/telemetry", str(number).encode(), qos=1)
            if number % 500 == 499:
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        again = Writer(broker)
        await again.start()
        await until(lambda: len(again.got) >= 3000)
        assert again.payloads() == [str(number).encode() for number in range(3000)]
        await again.stop()
        await client.disconnect()

    run(work)


def test_retained_messages_are_not_readings(broker: Broker) -> None:
    async def work() -> None:
        client = await device(broker, "a")
        for number in range(10):
            client.publish(f"paqett/v1/a/telemetry/m{number}", b"1", qos=1, retain=True)
        await asyncio.sleep(0.3)
        writer = Writer(broker)
        await writer.start()
        client.publish("paqett/v1/a/telemetry", b"fresh", qos=1)
        await until(lambda: bool(writer.got))
        await asyncio.sleep(0.2)
        assert writer.payloads() == [b"fresh"]
        await writer.stop()
        await client.disconnect()

    run(work)


def test_a_publisher_delivers_everything_through_a_killed_broker(broker: Broker) -> None:
    async def work() -> None:
        # a broker that is back at once looks like a takeover, and is waited for
        publisher = Publisher("127.0.0.1", broker.port, "a", "a", takeover_wait_s=1.0)
        sending = asyncio.create_task(publisher.run())
        writer = Writer(broker)
        await writer.start()
        futures = [publisher.enqueue("telemetry", str(n).encode()) for n in range(50)]
        await asyncio.gather(*futures)
        broker.kill()
        futures = [publisher.enqueue("telemetry", str(n).encode()) for n in range(50, 100)]
        broker.start()
        await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_S)
        await until(lambda: len(set(writer.payloads())) == 100)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await writer.stop()

    run(work)


def test_a_device_signs_in_over_tls(broker: Broker) -> None:
    port = serve_tls(broker)
    broker.start()

    async def work() -> None:
        await (await device(broker, "b")).disconnect()
        writer = Writer(broker)
        await writer.start()
        client = gmqtt.Client("any")
        client.set_auth_credentials("a", "a")
        trusted = ssl.create_default_context(cafile=str(broker.folder / "cert.pem"))
        await client.connect("localhost", port, ssl=trusted)
        client.publish("paqett/v1/a/telemetry", b"safe", qos=1)
        await until(lambda: bool(writer.got))
        await client.disconnect()
        await writer.stop()

    run(work)


def serve_tls(broker: Broker) -> int:
    """A certificate and a listener for devices that has it; the port."""
    broker.kill()
    folder = broker.folder
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    for name in ("key.pem", "cert.pem"):
        give(folder / name, service_user("mosquitto"))
    port = free_port(19300)
    with_tls = msgspec.structs.replace(
        broker.settings.broker,
        tls_port=port,
        tls_cert_file=str(folder / "cert.pem"),
        tls_key_file=str(folder / "key.pem"),
    )
    broker.settings = msgspec.structs.replace(broker.settings, broker=with_tls)
    return port


def reach(broker: Broker, **over: object) -> None:
    """The platform's way to the broker from now on."""
    over = {"host": "localhost", "port": free_port(19400), **over}
    mqtt = msgspec.structs.replace(broker.settings.mqtt, **over)
    broker.settings = msgspec.structs.replace(broker.settings, mqtt=mqtt)
    broker.start()


@pytest.mark.parametrize("tls", [False, True])
def test_the_platform_reads_over_tcp_too_with_tls_where_that_is_set(
    broker: Broker, *, tls: bool
) -> None:
    serve_tls(broker)
    reach(broker, tls=tls, tls_ca_file=str(broker.folder / "cert.pem"))
    assert platform_speaks_tls(broker) == tls

    async def work() -> None:
        client = await device(broker, "a")
        writer = Writer(broker)
        await writer.start()
        client.publish("paqett/v1/a/telemetry", b"far", qos=1)
        await until(lambda: writer.payloads() == [b"far"])
        await client.disconnect()
        await writer.stop()

    run(work)


def platform_speaks_tls(broker: Broker) -> bool:
    """Whether the platform's listener answers a handshake."""
    where = ("localhost", broker.settings.mqtt.port)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            ssl.get_server_certificate(where)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        except OSError:
            return False
        else:
            return True


def test_a_broker_whose_certificate_nobody_vouches_for_is_not_read(broker: Broker) -> None:
    serve_tls(broker)
    reach(broker, tls=True)

    async def work() -> None:
        await (await device(broker, "a")).disconnect()
        writer = Writer(broker)
        with pytest.raises(ssl.SSLCertVerificationError):
            await writer.consumer._connect()

    run(work)


def test_a_certificate_authority_that_is_not_there_is_told_of() -> None:
    mqtt = msgspec.structs.replace(
        load({}).mqtt, host="broker", tls=True, tls_ca_file="/nowhere.pem"
    )
    with pytest.raises(ConfigurationError, match=r"tls_ca_file: /nowhere\.pem"):
        Consumer(mqtt, "any", ["#"], lambda _: None)


def test_plain_mqtt_beyond_loopback_must_be_asked_for(broker: Broker) -> None:
    wide = msgspec.structs.replace(broker.settings.broker, listen_host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="allow_plain"):
        files.mosquitto_conf(wide, broker.settings.mqtt, broker.folder, "nobody")


def test_a_verifier_fits_its_secret_alone() -> None:
    line = verifier("secret")
    assert line.startswith("$7$1$")
    assert matches("secret", line)
    assert not matches("Secret", line)
