"""Where the local stack keeps its data, and the one file where its secrets stand in clear."""

import hashlib
import os
import pwd
import secrets
from pathlib import Path

import msgspec

from paqett.children import service_user


class State(msgspec.Struct):
    """`.paqett/up.json`, mode 0600: what scripts and a newcomer need."""

    api_url: str = ""
    ops_url: str = ""
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 0
    platform_port: int = 0
    database_port: int = 0
    database_url: str = ""
    api_key: str = ""
    account_id: int = 0
    account_password: str = ""
    device_id: str = ""
    device_secret: str = ""
    spare_device_id: str = ""
    spare_device_secret: str = ""
    role_passwords: dict[str, str] = msgspec.field(default_factory=dict)
    broker_password: str = ""
    stripe_url: str = ""
    stripe_secret_key: str = ""
    stripe_webhook_secret: str = ""
    pids: dict[str, int] = msgspec.field(default_factory=dict)


def open_folder(wanted: Path) -> Path:
    """Make the data folder and return where it really is.

    The servers' own users must be able to enter it; where the checkout lies in a private folder
    (`/root`, `mktemp -d`), `.paqett` becomes a link to a folder elsewhere.
    """
    if wanted.is_symlink() or wanted.exists():
        real = wanted.resolve()
        real.mkdir(parents=True, exist_ok=True)
        return real
    place = wanted.absolute()
    user = service_user("postgres")
    if user is None or _can_enter(place.parent, user):
        place.mkdir(mode=0o755)
        return place.resolve()
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    real = Path("/var/lib/paqett") / digest
    real.mkdir(parents=True, exist_ok=True)
    real.chmod(0o755)
    wanted.symlink_to(real)
    return real


def _can_enter(folder: Path, user: str) -> bool:
    entry = pwd.getpwnam(user)
    for place in (folder.resolve(), *folder.resolve().parents):
        info = place.stat()
        if not info.st_mode & 0o001 and not (info.st_uid == entry.pw_uid and info.st_mode & 0o100):
            return False
    return True


def load(folder: Path) -> State:
    """The state of the last start, or a new one with its secrets made."""
    try:
        state = msgspec.json.decode((folder / "up.json").read_bytes(), type=State)
    except FileNotFoundError:
        state = State()
    for role in ("owner", "api", "ingest", "worker"):
        state.role_passwords.setdefault(role, secrets.token_urlsafe(24))
    state.broker_password = state.broker_password or secrets.token_urlsafe(24)
    if not state.stripe_secret_key:
        state.stripe_secret_key = f"sk_test_{secrets.token_hex(24)}"
        state.stripe_webhook_secret = f"whsec_{secrets.token_hex(24)}"
    return state


def save(folder: Path, state: State) -> None:
    """Write `up.json` whole, readable by its owner alone."""
    path, draft = folder / "up.json", folder / "up.json.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=2))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
