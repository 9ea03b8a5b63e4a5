"""`/api/v1/alert-rules` and `/api/v1/alerts`: what is watched, and what came of it."""

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET

from paqett import alert_replay, alerts, conditions, db
from paqett.alert_replay import Replay
from paqett.alert_rules import Rule, RuleChange, RuleIn
from paqett.app import Services
from paqett.lists import Page
from paqett.principals import Principal
from paqett.web.auth import needs, principal_of
from paqett.web.devices import KeyLimited, PlainText, allowed

_NEEDS = needs("alerts")
_Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
_Request = Request[Any, Any, State]


def _devices(principal: Principal) -> list[str] | None:
    """A limited key's devices; None for all of the account's."""
    return None if principal.device_ids is None else sorted(principal.device_ids)


def _may_watch(principal: Principal, device_id: str | None) -> None:
    """A limited key makes rules about its devices alone. Raises `KeyLimited`, `NotFound`."""
    if device_id is not None:
        allowed(principal, device_id)
    elif principal.device_ids is not None:
        raise KeyLimited("This API key is limited to certain devices: name one in device_id.")


class AlertRuleController(Controller):
    """Alert rules of the account."""

    path = "/api/v1/alert-rules"
    tags = ["alerts"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**_NEEDS)
    async def list_rules(
        self, request: _Request, limit: _Limit = 100, cursor: FromQuery[str | None] = None
    ) -> Page:
        """The rules in the order they were made."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        async with db.transaction(services.pool) as conn:
            return await alerts.list_rules(
                conn, principal.account, devices=_devices(principal), limit=limit, cursor=cursor
            )

    @post(problems=(404, 409), **_NEEDS)
    async def create_rule(self, request: _Request, data: JSONBody[RuleIn]) -> Rule:
        """Make a rule; it judges every fresh reading from now on."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        _may_watch(principal, data.device_id)
        plan = services.plans[principal.account.plan]
        async with db.transaction(services.pool) as conn:
            return await alerts.create(conn, principal.account, plan, data, services.clock())

    @patch("/{rule_id:int}", **_NEEDS)
    async def update_rule(
        self, request: _Request, rule_id: FromPath[int], data: JSONBody[RuleChange]
    ) -> Rule:
        """Change a rule. With another condition it begins anew, and what it held on ends."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        if data.device_id is not UNSET:
            _may_watch(principal, data.device_id)
        async with db.transaction(services.pool) as conn:
            return await alerts.update(
                conn, principal.account, rule_id, data, _devices(principal), services.clock()
            )

    @delete("/{rule_id:int}", **_NEEDS)
    async def delete_rule(self, request: _Request, rule_id: FromPath[int]) -> None:
        """Delete a rule; its past alerts stay listed."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        async with db.transaction(services.pool) as conn:
            await alerts.delete(
                conn, principal.account, rule_id, _devices(principal), services.clock()
            )

    @post("/{rule_id:int}/test", status_code=200, **_NEEDS)
    async def test_rule(self, request: _Request, rule_id: FromPath[int]) -> Replay:
        """When the rule would have fired in the last 24 hours; nobody is told."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        devices = _devices(principal)
        timeout_s = services.settings.database.statement_timeout_s
        async with db.transaction(services.pool, timeout_s=timeout_s) as conn:
            rule = await alerts.get(conn, principal.account, rule_id, devices)
            return await alert_replay.replay(
                conn, principal.account, rule, devices, services.clock()
            )


class AlertController(Controller):
    """Alerts of the account."""

    path = "/api/v1/alerts"
    tags = ["alerts"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**_NEEDS)
    async def list_alerts(
        self,
        request: _Request,
        wanted: Annotated[conditions.State | None, QueryParameter(name="state")] = None,
        rule: Annotated[int | None, QueryParameter(ge=1, le=2_147_483_647)] = None,
        device: PlainText = None,
        limit: _Limit = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """Newest first: pending, firing, and resolved ones of 90 days."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        devices = _devices(principal)
        if device is not None:
            allowed(principal, device)
            devices = [device]
        async with db.transaction(services.pool) as conn:
            return await alerts.list_alerts(
                conn, principal.account, state=wanted, rule=rule, devices=devices, limit=limit,
                cursor=cursor,
            )  # fmt: skip
