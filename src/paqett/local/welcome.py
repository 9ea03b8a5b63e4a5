"""What a newcomer is told once everything is up: addresses, and lines that work when pasted."""

import socket
from pathlib import Path

import psutil

from paqett.local.state import State

_TEXT = """
Paqett is up at {api}, MQTT at {host}:{port}.
Account {account} (me@localhost, plan own); its password, key and secrets: {file}

This machine's readings of the last minute:
  curl -s -H "Authorization: Bearer {key}" "{api}/api/v1/devices/{device}/telemetry?from=-1m"

Publish a reading of your own, with the spare device, and read it back:
  mosquitto_pub -h {host} -p {port} -q 1 -u {spare} -P {secret} \
-t paqett/v1/{spare}/telemetry -m '{{"temperature": 21.5}}'
  curl -s -H "Authorization: Bearer {key}" "{api}/api/v1/devices/{spare}/latest"

Watch readings, refusals and connections as they happen (Ctrl-C ends it):
  curl -sN -H "Authorization: Bearer {key}" "{api}/api/v1/stream"

Sign in as a person would (the cookie goes to cookies.txt):
  curl -s -c cookies.txt -H "Content-Type: application/json" "{api}/api/v1/auth/login" \
-d "{{\\"email\\": \\"me@localhost\\", \\"password\\": \\"{password}\\"}}"
{lan}{mail}{demo}
Ctrl-C stops everything; the data stays."""

_DEMO = """
Plans are sold by a fake Stripe: new accounts are on free, cards are 4242 4242 4242 4242, and
{stripe} decides what goes wrong with webhooks. Mails are written to {mails}.
"""

_READ = """$(python3 -c "import json; print(json.load(open('{file}'))['{name}'])")"""


def show(
    current: State, data_dir: Path, *, first: bool, lan: bool, mail: str = "", demo: bool = False
) -> None:
    """Print it. Secrets are shown at the first start alone; later lines read them from the file.

    `mail` is the folder mails are written to, or empty where they are sent.
    """
    file = data_dir / "up.json"
    key, secret = current.api_key, current.spare_device_secret
    password = current.account_password
    if not first:
        password = _READ.format(file=file, name="account_password")
        key = _READ.format(file=file, name="api_key")
        secret = _READ.format(file=file, name="spare_device_secret")
    boards = f"\nBoards on the local network: {_lan_address()}:{current.mqtt_port} (without TLS)\n"
    text = _TEXT.format(
        api=current.api_url,
        host=current.mqtt_host,
        port=current.mqtt_port,
        account=current.account_id,
        file=file,
        key=key,
        secret=secret,
        password=password,
        device=current.device_id,
        spare=current.spare_device_id,
        lan=boards if lan else "",
        mail=f"\nMail is not sent but written to {mail}, and shown here.\n" if mail else "",
        demo=_DEMO.format(stripe=current.stripe_url, mails=data_dir / "mail") if demo else "",
    )
    print(text, flush=True)  # noqa: T201 - what the command is for


def _lan_address() -> str:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return address.address
    return "no address on a network"
