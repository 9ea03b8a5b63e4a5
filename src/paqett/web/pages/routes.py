"""Every page there is."""

from paqett.web.pages import (
    admin,
    alerts,
    channels,
    chart_data,
    connect,
    deletion,
    device,
    devices,
    docs,
    explore,
    grafana,
    keys,
    leaving,
    notices,
    overview,
    plan,
    privacy,
    public,
    settings,
    sign_in,
)

PAGES = (
    *public.HANDLERS, *docs.HANDLERS, *privacy.HANDLERS, *sign_in.HANDLERS, *settings.HANDLERS,
    *keys.HANDLERS, *grafana.HANDLERS, *plan.HANDLERS, *alerts.HANDLERS, *channels.HANDLERS,
    *overview.HANDLERS, *connect.HANDLERS, *devices.HANDLERS,
    *device.HANDLERS, *explore.HANDLERS, *chart_data.HANDLERS,
    *notices.HANDLERS, *admin.HANDLERS, *leaving.HANDLERS, *deletion.HANDLERS,
)  # fmt: skip
