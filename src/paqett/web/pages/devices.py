"""`/devices`: every device, one more, or many out of a table."""

import csv
import io
import re
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromQuery, QueryParameter
from litestar.response import Template

from paqett import db, device_lists
from paqett.device_lists import Sort
from paqett.device_structs import DeviceIn, NewDevice
from paqett.devices import create_many
from paqett.errors import Invalid, Problem
from paqett.readings import read
from paqett.web import auth
from paqett.web.bulk import read_devices
from paqett.web.devices import DeviceController, PlainText, creator
from paqett.web.pages import access, connect, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent

_Request = Request[Any, Any, State]
STATES = (
    ("", "any"), ("fresh", "fresh data"), ("stale", "silent"), ("never", "no data yet"),
    ("online", "connected"), ("offline", "not connected"), ("paused", "paused"),
)  # fmt: skip
SORTS = (
    ("created", "oldest"), ("new", "newest"), ("name", "name"),
    ("-name", "name, Z to A"), ("data", "newest data"), ("-data", "oldest data"),
)  # fmt: skip
_LARGEST = 1_048_576  # bytes of a table of devices, as the API takes it
_SECRETS = ("thing_name", "id", "secret")
_SECONDS = re.compile(r"[0-9]{1,12}")  # Python refuses to read a number of thousands of digits


@get("/devices", **access.person())
async def device_list(
    request: _Request,
    q: PlainText = None,
    tag: PlainText = None,
    how: Annotated[device_lists.State, QueryParameter(name="state")] = "",
    sort: FromQuery[Sort] = "created",
    page: Annotated[int, QueryParameter(ge=1, le=100_000)] = 1,
) -> Template:
    """A page of them, with what each said last."""
    services = request.app.state.services
    account, now = auth.principal_of(request).account, services.clock()
    async with db.transaction(services.pool) as conn:
        found = await device_lists.find(
            conn, account, now, text=q or None, tag=tag or None, state=how, sort=sort,
            number=page,
        )  # fmt: skip
        counts = await device_lists.counts(conn, account, now)
        tags = await device_lists.tags(conn, account)
    async with services.readers.statements() as conn:
        latest = await read.latest(conn, account, [one.id for one in found.items], now)
    asked = {"q": q, "tag": tag, "state": how, "sort": "" if sort == "created" else sort}
    return view.render(
        request, "devices.html", found=found, counts=counts, last=_last(latest), q=q or "",
        tag=tag or "", state=how, sort=sort, states=STATES, sorts=SORTS,
        tags=[("", "any"), *((one, one) for one in tags)],
        asked={name: value for name, value in asked.items() if value},
        most=services.plans[account.plan].devices,
    )  # fmt: skip


def _last(latest: list[read.Latest]) -> dict[str, read.Latest]:
    """The newest reading of each device."""
    found: dict[str, read.Latest] = {}
    for one in latest:
        if one.device not in found or one.time > found[one.device].time:
            found[one.device] = one
    return found


@get("/devices/new", **access.person())
async def new_device(request: _Request) -> Template:
    """The form."""
    return view.render(request, "device_new.html")


@post("/devices/new", **access.person())
async def make_device(request: _Request) -> Response[Any]:
    """One device; how it sends, with its secret, is the answer."""
    form = await sent(request)
    try:
        data = convert(given(form), DeviceIn)
        made = await ask(request, DeviceController.create_device, data=data)
    except Problem as error:
        return view.render(request, "device_new.html", form=form.refuse(error))
    return await connect.show(request, made.id, secret=made.secret)


def given(form: Form) -> dict[str, Any]:
    """A device as its form was filled in. Raises `Invalid`."""
    interval = form.given("report_interval")
    if interval is not None and not _SECONDS.fullmatch(interval):
        raise Invalid("This is a number of seconds, such as 60.", field="report_interval")
    return {
        "thing_name": form.text("thing_name").strip(),
        "friendly_name": form.given("friendly_name"),
        "mac_address": form.given("mac_address"),
        "firmware_version": form.given("firmware_version"),
        "tags": [tag.strip() for tag in form.text("tags").split(",") if tag.strip()],
        "report_interval": None if interval is None else int(interval),
        "clock": "server" if form.has("server_clock") else "device",
    }


@get("/devices/import", **access.person())
async def ask_import(request: _Request) -> Template:
    """The form."""
    return view.render(request, "device_import.html", made=None, table="")


@post("/devices/import", **{**access.person(), "request_max_body_size": _LARGEST})
async def import_devices(request: _Request) -> Response[Any]:
    """All of the table or none; the secrets are in this answer, as a page or as CSV."""
    form = await sent(request)
    services = request.app.state.services
    account = creator(request)
    try:
        wanted = read_devices("text/csv", form.text("rows").strip().encode())
        async with db.transaction(services.pool) as conn:
            plan = services.plans[account.plan]
            made = await create_many(conn, account, plan, wanted)
    except Problem as error:
        return view.render(
            request, "device_import.html", form=_refuse(form, error), made=None, table=""
        )
    table = _secrets(made)
    if form.text("as") == "csv":
        headers = {
            "Content-Disposition": 'attachment; filename="devices.csv"',
            "Cache-Control": "no-store",
        }
        return Response(table, media_type="text/csv; charset=utf-8", headers=headers)
    return view.render(request, "device_import.html", made=made, table=table)


def _refuse(form: Form, error: Problem) -> Form:
    """What was wrong stands at the table, with the line as people count it."""
    index = error.extra.get("index")
    where = "" if index is None else f"Line {index + 2}: "
    named = error.extra.get("field")
    text = error.detail.removeprefix(f"Row {index}: ")
    about = f" ({named})" if named else ""
    return form.refuse(Invalid(f"{where}{text.rstrip('.')}{about}.", field="rows"))


def _secrets(made: list[NewDevice]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_SECRETS)
    lines.writerows([one.thing_name, one.id, one.secret] for one in made)
    return text.getvalue()


HANDLERS = (device_list, new_device, make_device, ask_import, import_devices)
