"""What would listen in clear beyond this machine has to be asked for."""

from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError
from paqett.settings import Http, Settings


def check_listener(http: Http) -> None:
    """Raises `ConfigurationError` for plain HTTP beyond loopback that nobody asked for."""
    if http.host not in LOOPBACK and not http.tls_cert_file and not http.allow_plain:
        raise ConfigurationError(
            f"http.host is {http.host}: HTTP without TLS beyond this machine needs"
            " http.allow_plain = true (or set http.tls_cert_file and http.tls_key_file)"
        )


def check_ops_listener(settings: Settings) -> None:
    """Raises `ConfigurationError` where the operator's listener, which asks nobody who they are,
    would be open beyond this machine without anybody having asked for it."""
    ops = settings.ops
    if ops.port and ops.host not in LOOPBACK and not settings.http.allow_plain:
        raise ConfigurationError(
            f"ops.host is {ops.host}: it speaks plain HTTP and asks for no token; keep it on"
            " loopback, or set http.allow_plain = true"
        )
