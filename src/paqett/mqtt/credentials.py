"""Device ids and secrets, and the form in which the broker knows them."""

import base64
import hashlib
import hmac
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_SALT_BYTES = 12
# One round is right only because a secret is 256 random bits, not a password of a person's.
_ROUNDS = 1

# `paqett doctor` signs in under it with what any device may do; the dot is in no device's id.
PROBE = "paqett.probe"


def new_device_id() -> str:
    """12 random letters and digits (71 bits)."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


def new_secret() -> str:
    """256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def verifier(secret: str) -> str:
    """The second half of a line of Mosquitto's password file (PBKDF2-SHA512)."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches(secret: str, stored: str) -> bool:
    """Whether `secret` belongs to the verifier `stored`, in constant time."""
    _, _, rounds, salt, digest = stored.split("$")
    computed = hashlib.pbkdf2_hmac("sha512", secret.encode(), base64.b64decode(salt), int(rounds))
    return hmac.compare_digest(computed, base64.b64decode(digest))


def writer_client_id(password: str) -> str:
    """The platform's client id: stable across restarts, and no device can guess it."""
    return "paqett-ingest-" + hmac.digest(password.encode(), b"client id", "sha256").hex()[:32]


def probe_secret(password: str) -> str:
    """The probe's secret, known to whoever knows the platform's password."""
    return hmac.digest(password.encode(), b"probe", "sha256").hex()
