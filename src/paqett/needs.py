"""Which process needs which secret; what else it is given, whoever takes it over has too."""

import msgspec

from paqett.settings import Settings

# database.url is everybody's, each with a role of its own
SECRETS: dict[str, frozenset[str]] = {
    # with the password of the API's role: nobody else reads there
    "database.replica_url": frozenset({"api"}),
    "roles.api_password": frozenset({"migrate"}),
    "roles.ingest_password": frozenset({"migrate"}),
    "roles.worker_password": frozenset({"migrate"}),
    "mail.smtp_password": frozenset({"worker"}),
    "github.client_secret": frozenset({"api"}),
    # the API asks for Checkout and the portal, the worker for subscriptions and deletions
    "stripe.secret_key": frozenset({"api", "worker"}),
    "stripe.webhook_secret": frozenset({"api"}),
    "ops.token": frozenset({"api"}),
    # the worker clears what devices of a deleted account have left at the broker
    "mqtt.password": frozenset({"ingest", "worker", "broker"}),
    "broker.auth_secret": frozenset({"api", "broker"}),
    "broker.management_key": frozenset({"broker"}),
    "broker.management_secret": frozenset({"broker"}),
    "agent.secret": frozenset({"agent"}),
    "client.key": frozenset(),
}


def in_vain(settings: Settings, process: str) -> list[str]:
    """The secrets that are set and that `paqett <process>` never reads, like `mqtt.password`."""
    given = msgspec.to_builtins(settings)
    found = []
    for name, users in SECRETS.items():
        section, _, key = name.partition(".")
        if given[section][key] and process not in users:
            found.append(name)
    return found
