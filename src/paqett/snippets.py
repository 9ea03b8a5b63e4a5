"""Lines that send a first reading, with everything filled in but the secret, which nobody knows."""

from functools import cache
from importlib import resources
from string import Template

import msgspec

SECRET = "YOUR_DEVICE_SECRET"  # noqa: S105 - stands where the secret goes
_KINDS = {
    "mosquitto_pub": ("mosquitto_pub", "shell"),
    "curl": ("curl", "shell"),
    "python": ("Python", "python"),
    "arduino": ("Arduino, ESP32", "cpp"),
    "micropython": ("MicroPython", "python"),
    "home_assistant": ("Home Assistant", "yaml"),
    "agent": ("This machine's own readings", "shell"),
}


class Place(msgspec.Struct, frozen=True):
    """How devices reach us: the broker's host and port, and the API's address."""

    host: str
    port: int
    tls: bool
    api: str


class Snippet(msgspec.Struct, frozen=True):
    """`code` in `language`, for people to paste."""

    name: str
    title: str
    language: str
    code: str


def snippets(place: Place, device_id: str) -> list[Snippet]:
    """One for each way to begin, in the order most people want them."""
    values = {
        "host": place.host,
        "port": str(place.port),
        "api": place.api,
        "device": device_id,
        "secret": SECRET,
        **_transport(tls=place.tls),
    }
    return [
        Snippet(name, title, language, _template(name).substitute(values))
        for name, (title, language) in _KINDS.items()
    ]


def _transport(*, tls: bool) -> dict[str, str]:
    """What differs with TLS."""
    if not tls:
        return {
            "tls": "false", "mosquitto_tls": "", "micropython_tls": "",
            "arduino_include": "", "arduino_client": "WiFiClient net;", "arduino_setup": "",
        }  # fmt: skip
    return {
        "tls": "true",
        "mosquitto_tls": " --tls-use-os-certs",
        "micropython_tls": ", ssl=True",
        "arduino_include": "#include <WiFiClientSecure.h>",
        "arduino_client": "WiFiClientSecure net;",
        "arduino_setup": '  net.setCACert("THE_CERTIFICATE_AUTHORITY_IN_PEM");\n',
    }


@cache
def _template(name: str) -> Template:
    folder = resources.files("paqett") / "snippet_templates"
    return Template((folder / f"{name}.txt").read_text())
