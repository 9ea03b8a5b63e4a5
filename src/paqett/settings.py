"""One struct of settings: defaults in `config/paqett.toml`, then a file, then the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from paqett.errors import ConfigurationError

PREFIX = "PAQETT_"
SHORTEST_SECRET = 32  # characters of broker.auth_secret
# Read by the tests and by the program's own start, not settings.
_NOT_SETTINGS = ("PAQETT_TEST_", "PAQETT_CONFIG")


class General(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[paqett]`"""

    data_dir: str
    plans_file: str
    default_plan: str
    public_url: str
    operator_email: str


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`"""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["console", "json"]


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[database]`"""

    url: str
    replica_url: str
    replica_wait_s: float
    pool_size: int
    connect_timeout_s: float
    statement_timeout_s: float
    migrate_lock_timeout_s: float
    migrate_statement_timeout_s: float
    migrate_patience_s: float


class Roles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[roles]`"""

    api_password: str
    ingest_password: str
    worker_password: str


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[http]`"""

    host: str
    port: int
    allow_plain: bool
    tls_cert_file: str
    tls_key_file: str
    trusted_proxies: str
    request_timeout_s: float
    max_connections: int
    max_head_bytes: int


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`"""

    open_registration: bool
    argon2_time_cost: int
    argon2_memory_kib: int
    argon2_parallelism: int
    hash_concurrency: int
    hash_queue: int
    session_idle_s: float
    session_max_s: float
    recent_s: float
    verify_email_s: float
    reset_password_s: float
    reauthenticate_s: float


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[mail]`"""

    smtp_host: str
    smtp_port: int
    smtp_username: str
    smtp_password: str
    smtp_tls: Literal["starttls", "tls", "none"]
    from_address: str
    timeout_s: float
    most_a_day: int


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[privacy]`"""

    controller: str
    contact: str
    hosting_region: str
    processors: str


class Webhooks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[webhooks]`"""

    allow_private: bool
    timeout_s: float


class Github(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[github]`"""

    client_id: str
    client_secret: str
    authorize_url: str
    token_url: str
    api_url: str


class Stripe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[stripe]`"""

    secret_key: str
    webhook_secret: str
    webhook_tolerance_s: int
    api_base: str
    timeout_s: float


class Ops(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[ops]`"""

    host: str
    port: int
    token: str
    open_on_api: bool
    tracing: bool


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[mqtt]`"""

    host: str
    port: int
    username: str
    password: str
    tls: bool
    tls_ca_file: str
    receive_maximum: int
    share_group: str


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[broker]`"""

    kind: Literal["mosquitto", "rabbitmq", "emqx"]
    binary: str
    public_host: str
    listen_host: str
    listen_port: int
    allow_plain: bool
    tls_port: int
    tls_cert_file: str
    tls_key_file: str
    max_packet_bytes: int
    auth_url: str
    auth_ca_file: str
    auth_secret: str
    management_url: str
    management_key: str
    management_secret: str


class Ingest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[ingest]`"""

    batch_rows: int
    batch_age_ms: int
    patience_ms: int
    flush_timeout_s: float
    drain_timeout_s: float
    spool_max_bytes: int
    spool_min_free_bytes: int


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[worker]`"""

    concurrency: int
    retention_every_s: int


class Exports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[exports]`"""

    dir: str
    min_free_bytes: int


class Grafana(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[grafana]`"""

    host: str
    port: int
    sslmode: Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
    query_limit_s: int


class Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[agent]`"""

    host: str
    port: int
    device_id: str
    secret: str
    tls: bool
    interval_s: float


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[client]`"""

    url: str
    key: str


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[backup]`"""

    folder: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set, one member for each section of `config/paqett.toml`."""

    paqett: General
    log: Log
    database: Database
    roles: Roles
    http: Http
    auth: Auth
    mail: Mail
    privacy: Privacy
    webhooks: Webhooks
    github: Github
    stripe: Stripe
    ops: Ops
    mqtt: Mqtt
    broker: Broker
    ingest: Ingest
    worker: Worker
    exports: Exports
    grafana: Grafana
    agent: Agent
    client: Client
    backup: Backup

    @property
    def data_dir(self) -> Path:
        """The folder that holds what a process keeps on disk."""
        return Path(self.paqett.data_dir)

    @property
    def export_dir(self) -> Path:
        """The folder of Export All My Data, the same for api and worker."""
        return Path(self.exports.dir) if self.exports.dir else self.data_dir / "exports"

    @property
    def backup_dir(self) -> Path:
        """Where backups lie, and beside them what has been erased since."""
        return Path(self.backup.folder) if self.backup.folder else self.data_dir / "backup"

    @property
    def default_plan(self) -> str:
        """The plan of an account made without naming one."""
        return self.paqett.default_plan or ("free" if self.stripe.secret_key else "own")

    @property
    def public_url(self) -> str:
        """How people reach the API and the pages, without a slash at the end."""
        if self.paqett.public_url:
            return self.paqett.public_url.rstrip("/")
        scheme = "https" if self.http.tls_cert_file else "http"
        return f"{scheme}://{self.http.host}:{self.http.port}"

    @property
    def behind_tls(self) -> bool:
        """Whether people reach us over TLS, ours or a proxy's."""
        return self.public_url.startswith("https://")

    @property
    def devices_host(self) -> str:
        """The name or address under which devices find the broker."""
        return self.broker.public_host or str(urlsplit(self.public_url).hostname)

    @property
    def plans_file(self) -> Path:
        """The plans in force: `config/plans.toml` unless a setting names another file."""
        named = self.paqett.plans_file
        return Path(named) if named else config_dir() / "plans.toml"


def _shipped(folder: str) -> Path:
    """A folder of files shipped with the program: inside the wheel, or beside `src/`."""
    inside = Path(__file__).parent / folder
    return inside if inside.is_dir() else Path(__file__).parents[2] / folder


def config_dir() -> Path:
    """The shipped `config/`."""
    return _shipped("config")


def docs_dir() -> Path:
    """The shipped `docs/`."""
    return _shipped("docs")


def sql_dir() -> Path:
    """The shipped `sql/`."""
    return _shipped("sql")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises `ConfigurationError` for an unknown key, a value of the wrong type or a file that
    cannot be read.
    """
    env = os.environ if environ is None else environ
    values = tomllib.loads((config_dir() / "paqett.toml").read_text())
    if env.get("PAQETT_CONFIG"):
        _merge(values, _read_toml(Path(env["PAQETT_CONFIG"])))
    for name, text in env.items():
        if name.startswith(PREFIX) and not name.startswith(_NOT_SETTINGS):
            _set_from_environment(values, name, text)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"PAQETT_CONFIG: {path}: {error}") from None


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for section, entries in over.items():
        if section not in values or not isinstance(entries, dict):
            raise ConfigurationError(f"settings: unknown section [{section}]")
        values[section] |= entries


def _set_from_environment(values: dict[str, Any], name: str, text: str) -> None:
    section, _, key = name.removeprefix(PREFIX).lower().partition("__")
    entries = values.get(section, {})
    if key not in entries and key.endswith("_file"):
        key = key.removesuffix("_file")
        text = _read_secret(name, Path(text))
    if key not in entries:
        raise ConfigurationError(f"settings: {name} names no setting (see config/paqett.toml)")
    entries[key] = text


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"settings: {name}: {error}") from None
