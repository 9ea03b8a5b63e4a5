"""`paqett up --demo`: the fake Stripe beside everything else, and the settings that lead to it."""

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from paqett.children import free_port
from paqett.errors import ConfigurationError
from paqett.local.state import State
from paqett.local.supervisor import Program, command
from paqett.plans import load_plans
from paqett.settings import Settings

_PORT = 9580


def stripe(settings: Settings, current: State, folder: Path) -> Program:
    """The fake as a program; notes its address in `current`.

    Raises `ConfigurationError` where the real Stripe is set up.
    """
    if settings.stripe.secret_key:
        raise ConfigurationError("--demo sells by a fake Stripe, and stripe.secret_key is set")
    last = urlsplit(current.stripe_url).port if current.stripe_url else None
    port = free_port(last or _PORT)
    current.stripe_url = f"http://127.0.0.1:{port}"
    plans = load_plans(settings.plans_file).values()
    environ = {
        "FAKE_STRIPE_PORT": str(port),
        "FAKE_STRIPE_SECRET_KEY": current.stripe_secret_key,
        "FAKE_STRIPE_WEBHOOK_SECRET": current.stripe_webhook_secret,
        "FAKE_STRIPE_WEBHOOK_URL": f"{current.api_url}/hooks/stripe",
        "FAKE_STRIPE_FILE": str(folder / "fake_stripe.json"),
        "FAKE_STRIPE_LOOKUP_KEYS": ",".join(p.stripe_lookup_key or "" for p in plans),
    }
    argv = [sys.executable, "-m", "paqett.local.fake_stripe"]
    return Program("stripe", command(argv, environ, folder / "log" / "stripe.log"), signal.SIGTERM)


def environ(current: State) -> dict[str, str]:
    """For the processes that sell."""
    return {
        "PAQETT_STRIPE__SECRET_KEY": current.stripe_secret_key,
        "PAQETT_STRIPE__WEBHOOK_SECRET": current.stripe_webhook_secret,
        "PAQETT_STRIPE__API_BASE": current.stripe_url,
    }
