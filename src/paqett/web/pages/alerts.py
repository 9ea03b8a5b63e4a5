"""`/alerts`: what is watched, what came of it, and what a rule would have done."""

from collections.abc import Callable
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Template

from paqett import alert_replay, alerts, charts, conditions, db, metrics
from paqett.alert_replay import Replay
from paqett.alert_rules import Rule, draft
from paqett.conditions import IN_WORDS
from paqett.device_structs import Device
from paqett.errors import Problem
from paqett.web import auth
from paqett.web.alerts import AlertController, AlertRuleController
from paqett.web.devices import DeviceController
from paqett.web.pages import access, rules, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, sent

_Request = Request[Any, Any, State]
_MOST = 1000
_A_PAGE = 50


async def _devices(request: _Request) -> list[Device]:
    page = await ask(request, DeviceController.list_devices, limit=_MOST)
    found: list[Device] = page.items
    return found


@get("/alerts", **access.person())
async def alert_page(
    request: _Request,
    wanted: Annotated[conditions.State | None, QueryParameter(name="state")] = None,
    rule: Annotated[int | None, QueryParameter(ge=1, le=2_147_483_647)] = None,
    cursor: Annotated[str | None, QueryParameter(max_length=20)] = None,
) -> Template:
    """The rules, and alerts newest first."""
    page = await ask(
        request, AlertController.list_alerts, wanted=wanted, rule=rule, limit=_A_PAGE, cursor=cursor
    )
    known = await ask(request, AlertRuleController.list_rules, limit=_MOST)
    devices = await _devices(request)
    services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        account = auth.principal_of(request).account
        levels = await alerts.units(conn, account)
    said = [(one, rules.in_words(one, devices, levels.get(one.id, ""))) for one in known.items]
    plan = services.plans[account.plan]
    return view.render(
        request, "alerts.html", alerts=page.items, next_cursor=page.next_cursor, cursor=cursor,
        state=wanted, rule=rule, rules=said,
        names={one.id: one.friendly_name or one.thing_name for one in devices},
        rule_names={one.id: one.name for one in known.items}, most=plan.alert_rules,
        units=await _units(request, [one.device for one in page.items]),
    )  # fmt: skip


async def _units(request: _Request, devices: list[str]) -> dict[str, str]:
    """What the metrics of some devices are measured in, by `device:metric`."""
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        known = await charts.known(conn, account, devices)
    return {one.key: one.unit for one in known if one.unit}


async def _form(
    request: _Request, kind: str, *, form: Form | None = None, rule: Rule | None = None,
    preview: Replay | None = None,
) -> Template:  # fmt: skip
    account = auth.principal_of(request).account
    devices = await _devices(request)
    async with db.transaction(request.app.state.services.pool) as conn:
        names = await metrics.names(conn, account, _MOST)
    return view.render(
        request, "alert_rule.html", form=form, rule=rule, kind=kind, kinds=rules.KINDS,
        operators=tuple(IN_WORDS.items()), metrics=names, preview=preview,
        metric=form.given("metric") if form else None,
        units=await _units(request, [one.device for one in preview.items] if preview else []),
        devices=[("", "every device")]
        + [(one.id, one.friendly_name or one.thing_name) for one in devices],
        names={one.id: one.friendly_name or one.thing_name for one in devices},
        typed=_typed(rule),
    )  # fmt: skip


def _typed(rule: Rule | None) -> dict[str, str]:
    """A stored rule as its form holds it."""
    if rule is None:
        return dict.fromkeys(("name", "device", "metric", "threshold", "clear", "for"), "") | {
            "operator": ">"
        }
    return {
        "name": rule.name,
        "device": rule.device_id or "",
        "metric": rule.metric or "",
        "operator": rule.operator or ">",
        "threshold": rules.level(rule.threshold),
        "clear": rules.level(rule.clear),
        "for": rules.span(rule.for_),
    }


@get("/alerts/rules/new", **access.person())
async def new_rule(request: _Request, kind: FromQuery[str] = "threshold") -> Template:
    """The form of a rule of one kind."""
    return await _form(request, kind if kind in rules.KINDS else "threshold")


@get("/alerts/rules/{rule_id:int}", **access.person())
async def edit_rule(request: _Request, rule_id: FromPath[int]) -> Template:
    """A rule as it is, to be changed."""
    rule = await _rule(request, rule_id)
    return await _form(request, rule.kind, rule=rule)


async def _rule(request: _Request, rule_id: int) -> Rule:
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        return await alerts.get(conn, account, rule_id, None)


async def _preview(request: _Request, form: Form) -> Replay:
    """The rule as it is typed, over the last 24 hours; nothing is stored, nobody is told."""
    services = request.app.state.services
    account, now = auth.principal_of(request).account, services.clock()
    drafted = draft(rules.wanted(form), now)
    timeout_s = services.settings.database.statement_timeout_s
    async with db.transaction(services.pool, timeout_s=timeout_s) as conn:
        return await alert_replay.replay(conn, account, drafted, None, now)


async def _answer(
    request: _Request, form: Form, rule: Rule | None, save: Callable[[], Any]
) -> Response[Any]:
    kind = rule.kind if rule else form.text("kind", "threshold")
    try:
        if form.has("preview"):
            preview = await _preview(request, form)
            return await _form(request, kind, form=form, rule=rule, preview=preview)
        await save()
    except Problem as error:
        kind = kind if kind in rules.KINDS else "threshold"
        return await _form(request, kind, form=form.refuse(error), rule=rule)
    return view.done(request, "/alerts", "rule_saved")


@post("/alerts/rules/new", **access.person())
async def create_rule(request: _Request) -> Response[Any]:
    """Make it, or look first what it would have done."""
    form = await sent(request)

    async def save() -> None:
        await ask(request, AlertRuleController.create_rule, data=rules.wanted(form))

    return await _answer(request, form, None, save)


@post("/alerts/rules/{rule_id:int}", **access.person())
async def update_rule(request: _Request, rule_id: FromPath[int]) -> Response[Any]:
    """Change it, or look first what it would have done."""
    form = await sent(request)
    rule = await _rule(request, rule_id)

    async def save() -> None:
        changed = rules.change(form)
        await ask(request, AlertRuleController.update_rule, rule_id=rule_id, data=changed)

    return await _answer(request, form, rule, save)


@post("/alerts/rules/{rule_id:int}/delete", **access.person())
async def delete_rule(request: _Request, rule_id: FromPath[int]) -> Response[Any]:
    """Its past alerts stay listed."""
    await ask(request, AlertRuleController.delete_rule, rule_id=rule_id)
    return view.done(request, "/alerts", "rule_deleted")


HANDLERS = (alert_page, new_rule, edit_rule, create_rule, update_rule, delete_rule)
