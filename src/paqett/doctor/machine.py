"""What can be seen without asking anybody: folders, certificates, and what the settings say."""

import shutil

from paqett import mail_transport
from paqett.children import LOOPBACK
from paqett.doctor.findings import Finding
from paqett.errors import ConfigurationError
from paqett.settings import SHORTEST_SECRET, Settings

_GIB = 2**30
_LITTLE_BYTES, _NOTHING_BYTES = 5 * _GIB, _GIB
_SHORTEST_TOKEN = 20
_KEYS = ("sk_live_", "rk_live_", "sk_test_", "rk_test_")


def examine_machine(settings: Settings) -> list[Finding]:
    """Spool, disks, broker, listeners, mail, Stripe's settings, what the policy lacks."""
    return [
        _spool(settings), _disk(settings), _exposure(settings), _listeners(settings),
        _mail(settings), _stripe(settings), _privacy(settings),
    ]  # fmt: skip


def _disk(settings: Settings) -> Finding:
    """The disks Paqett's own folders are on; the database's is another machine's to watch."""
    wanted = (settings.data_dir, settings.export_dir, settings.backup_dir)
    free = {folder: shutil.disk_usage(folder).free for folder in wanted if folder.is_dir()}
    if not free:
        return Finding("disk", "ok", f"none of Paqett's folders is here yet: {wanted[0]}")
    folder, least = min(free.items(), key=lambda one: one[1])
    detail = f"{least / _GIB:.1f} GiB free at {folder}"
    mend = "make room, or move the folder to a larger disk"
    if least < _NOTHING_BYTES:
        return Finding("disk", "failed", detail, mend)
    if least < _LITTLE_BYTES:
        return Finding("disk", "warning", detail, mend)
    return Finding("disk", "ok", detail)


def _listeners(settings: Settings) -> Finding:
    """What speaks without TLS beyond this machine: never by itself, but perhaps forgotten."""
    http, broker, ops = settings.http, settings.broker, settings.ops
    behind = bool(http.trusted_proxies) and settings.behind_tls
    plain = []
    if broker.listen_host not in LOOPBACK:
        plain.append(f"MQTT at {broker.listen_host}:{broker.listen_port}")
    if http.host not in LOOPBACK and not http.tls_cert_file and not behind:
        plain.append(f"HTTP at {http.host}:{http.port}")
    if ops.port and ops.host not in LOOPBACK:
        plain.append(f"metrics, without a token, at {ops.host}:{ops.port}")
    if plain:
        mend = "give them certificates (docs/exposing.md), or bind them to 127.0.0.1"
        return Finding("listeners", "warning", f"in clear: {', '.join(plain)}", mend)
    if ops.token and len(ops.token) < _SHORTEST_TOKEN:
        detail = "ops.token is short, and anybody may try as often as they like"
        return Finding("listeners", "warning", detail, "make one with `openssl rand -hex 32`")
    if behind and settings.behind_tls:
        return Finding("listeners", "ok", f"HTTP by the proxies at {http.trusted_proxies}")
    return Finding("listeners", "ok", "nothing speaks in clear beyond this machine")


def _stripe(settings: Settings) -> Finding:
    """What a glance at the keys tells; whether Stripe takes them is asked elsewhere."""
    own = settings.stripe
    if not own.secret_key:
        return Finding("stripe settings", "ok", "no plans are sold")
    wrong = []
    if not own.secret_key.startswith(_KEYS):
        wrong.append("stripe.secret_key begins with none of " + ", ".join(_KEYS))
    if not own.webhook_secret.startswith("whsec_"):
        wrong.append("stripe.webhook_secret does not begin with whsec_")
    live = "_live_" in own.secret_key[:8]
    if live and not settings.behind_tls:
        wrong.append("a live key, and paqett.public_url is not https")
    if wrong:
        mend = "copy them anew from Stripe's dashboard: API keys, and the endpoint's own secret"
        return Finding("stripe settings", "failed", "; ".join(wrong), mend)
    if not live and settings.behind_tls:
        detail = "a test key: nobody pays"
        return Finding("stripe settings", "warning", detail, "use the live key to sell plans")
    return Finding("stripe settings", "ok", "live mode" if live else "test mode")


def _spool(settings: Settings) -> Finding:
    folder = settings.data_dir / "ingest" / "spool"
    try:
        if not folder.exists():
            return Finding("spool", "ok", f"none at {folder}: ingest has not run here")
        size = sum(path.stat().st_size for path in folder.glob("*.spool"))
        free = shutil.disk_usage(folder).free
    except PermissionError:
        return _sealed_spool(settings)
    except OSError as error:
        return Finding("spool", "warning", f"{folder}: {error}", "run this as ingest's user")
    detail = f"{size:,} of {settings.ingest.spool_max_bytes:,} bytes, {free:,} free on its disk"
    if free < settings.ingest.spool_min_free_bytes or size >= settings.ingest.spool_max_bytes:
        return Finding(
            "spool",
            "failed",
            f"{detail}: takes nothing more, messages wait in the broker",
            "make room, raise ingest.spool_max_bytes, or bring the database back",
        )
    if size:
        mend = "bring the database back, or look why it is slower than the arrivals"
        return Finding("spool", "warning", f"{detail}: waiting for the database", mend)
    return Finding("spool", "ok", detail)


def _sealed_spool(settings: Settings) -> Finding:
    """Ingest has a user of its own, as it should; its disk can be seen all the same."""
    folder = settings.data_dir / "ingest"
    free = shutil.disk_usage(folder).free
    detail = (
        f"{folder} is its own user's alone, {free:,} bytes free on its disk;"
        " paqett_ingest_spool_bytes says what waits in it"
    )
    if free < settings.ingest.spool_min_free_bytes:
        return Finding("spool", "failed", f"{detail}: takes nothing more", "make room")
    return Finding("spool", "ok", detail)


def _exposure(settings: Settings) -> Finding:
    """What of what devices were told is safe a killed broker can lose."""
    broker = settings.broker
    if broker.kind != "mosquitto" and len(broker.auth_secret) < SHORTEST_SECRET:
        detail = f"{broker.kind} cannot ask the API who may sign in"
        return Finding("broker", "failed", detail, "set broker.auth_secret: see docs/brokers.md")
    if broker.kind == "rabbitmq":
        detail = "RabbitMQ acknowledges from disk: killing it loses nothing that ingest waits for"
        return Finding("broker", "ok", detail)
    if broker.kind == "emqx":
        return Finding("broker", "warning", "EMQX is untested", "see docs/brokers.md")
    if settings.mqtt.share_group:
        return Finding("broker", "ok", f"shared subscriptions as {settings.mqtt.share_group}")
    return Finding(
        "broker",
        "ok",
        "Mosquitto acknowledges from memory: killing it can lose what ingest has not read yet"
        " (/metrics: paqett_ingest_broker_dropped_messages)",
    )


def _mail(settings: Settings) -> Finding:
    mail = settings.mail
    try:
        mail_transport.check(mail)
    except ConfigurationError as error:
        return Finding("mail", "failed", str(error), "change the settings in [mail]")
    if mail.smtp_host:
        return Finding("mail", "ok", f"by {mail.smtp_host}:{mail.smtp_port}, {mail.smtp_tls}")
    detail = f"written to {settings.data_dir / 'mail'}: nobody gets any"
    if settings.behind_tls:
        return Finding("mail", "warning", detail, "set mail.smtp_host")
    return Finding("mail", "ok", detail)


def _privacy(settings: Settings) -> Finding:
    """The policy must name who is responsible, at the latest where strangers can reach it."""
    own = settings.privacy
    named = {
        "controller": own.controller, "contact": own.contact, "hosting_region": own.hosting_region,
    }  # fmt: skip
    lacking = [name for name, text in named.items() if not text.strip()]
    if not lacking:
        return Finding("privacy", "ok", f"/privacy names {own.contact} and {own.hosting_region}")
    detail = f"/privacy does not say: {', '.join(lacking)}"
    mend = f"set {', '.join(f'privacy.{name}' for name in lacking)}"
    return Finding("privacy", "warning" if settings.behind_tls else "ok", detail, mend)
