"""Devices with readings of a site, for tests of pages."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from site_of_tests import Member, Site


def device(site: Site, member: Member, name: str, **more: Any) -> tuple[str, str]:
    """A device made through the API; its id and secret."""
    with site.client(member) as client:
        headers = {"X-CSRF-Token": member.csrf, "Accept": "application/json"}
        made = client.post("/api/v1/devices", json={"thing_name": name, **more}, headers=headers)
        assert made.status_code == 201, made.text
        return made.json()["id"], made.json()["secret"]


def send(site: Site, device_id: str, secret: str, payload: Any) -> Any:
    """Readings over HTTP, as the device; the answer."""
    with site.client() as client:
        return client.post(
            f"/api/v1/devices/{device_id}/telemetry", json=payload, auth=(device_id, secret),
            headers={"Accept": "application/json"},
        )  # fmt: skip


def wave(site: Site, device_id: str, secret: str, hours: int = 24, base: float = 21.0) -> None:
    """A reading every 5 minutes with an hour that is missing, a flag and a text."""
    now = datetime.now(UTC)
    items = []
    for step in range(hours * 12):
        at = now - timedelta(minutes=5 * (hours * 12 - step))
        if step // 12 == 6:
            continue
        values: dict[str, Any] = {
            "temperature": round(base + 4 * math.sin(step / 30), 2),
            "humidity": round(50 + 10 * math.cos(step / 20), 1),
            "heating": step % 40 < 12,
        }
        items.append({"ts": at.isoformat(), "values": values})
    for start in range(0, len(items), 200):
        answer = send(site, device_id, secret, items[start:][:200])
        assert answer.status_code == 200, answer.text
    assert send(site, device_id, secret, {"temperature": base, "mode": "eco"}).status_code == 200
