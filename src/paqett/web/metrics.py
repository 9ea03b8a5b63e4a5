"""`/api/v1/devices/{id}/metrics`: list them, name them, change their kind, delete one."""

from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from litestar import Controller, Request, delete, get, patch
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from paqett import metrics
from paqett.device_structs import PRINTABLE
from paqett.errors import NotFound
from paqett.lists import Page
from paqett.metrics import Metric
from paqett.web.auth import needs
from paqett.web.devices import of_device

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
Unit = Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=PRINTABLE)]
_Request = Request[Any, Any, State]


class MetricChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change; null clears, what is left out stays."""

    label: Label | msgspec.UnsetType | None = msgspec.UNSET
    unit: Unit | msgspec.UnsetType | None = msgspec.UNSET
    kind: Literal["number", "boolean", "text"] | msgspec.UnsetType = msgspec.UNSET


def _name(request: _Request) -> str:
    """The metric as it was asked for: the router's own value has lost doubled slashes."""
    path: str = request.scope["raw_path"].decode("ascii")
    head, found, name = path.partition("/metrics/")
    if not found or "%2f" in head.lower():  # a slash before it was written %2F
        raise NotFound("There is no such metric.")
    return unquote(name)


class MetricController(Controller):
    """Metrics of one device. A slash in a name is the dot it is stored as."""

    path = "/api/v1/devices/{device_id:str}/metrics"
    tags = ["devices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**needs("devices:read"))
    async def device_metrics(self, request: _Request, device_id: FromPath[str]) -> Page:
        """The device's metrics."""
        async with of_device(request, device_id) as (conn, account):
            return await metrics.list_metrics(conn, account, device_id)

    @patch("/{metric:path}", **needs("devices:write"))
    async def update_metric(
        self,
        request: _Request,
        device_id: FromPath[str],
        metric: FromPath[str],  # noqa: ARG002 - for the OpenAPI document; see `_name`
        data: JSONBody[MetricChange],
    ) -> Metric:
        """Label, unit and kind; readings stored before a change of kind stay as they were sent."""
        changes = {k: v for k, v in msgspec.structs.asdict(data).items() if v is not msgspec.UNSET}
        async with of_device(request, device_id) as (conn, account):
            return await metrics.update(conn, account, device_id, _name(request), changes)

    @delete("/{metric:path}", **needs("devices:write"))
    async def delete_metric(
        self,
        request: _Request,
        device_id: FromPath[str],
        metric: FromPath[str],  # noqa: ARG002 - for the OpenAPI document; see `_name`
    ) -> None:
        """The metric goes at once, its readings are erased by a job."""
        async with of_device(request, device_id) as (conn, account):
            await metrics.delete(conn, account, device_id, _name(request))
