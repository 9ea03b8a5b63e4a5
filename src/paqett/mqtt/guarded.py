"""Where something of ours stands in a place of gmqtt's own: another gmqtt may not have it."""

from paqett.errors import ConfigurationError


def require_places(owner: object, *names: str) -> None:
    """Raises `ConfigurationError` unless `owner` has them all."""
    if not all(hasattr(owner, name) for name in names):
        raise ConfigurationError("this gmqtt is not the 0.8 that Paqett was built against")
