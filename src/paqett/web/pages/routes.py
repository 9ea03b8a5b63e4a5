"""Every page there is."""

from paqett.web.pages import (
    admin,
    alerts,
    channels,
    chart_data,
    connect,
    device,
    devices,
    docs,
    explore,
    grafana,
    keys,
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
    *notices.HANDLERS, *admin.HANDLERS, *overview.HANDLERS, *connect.HANDLERS, *devices.HANDLERS,
    *device.HANDLERS, *explore.HANDLERS, *chart_data.HANDLERS,
)  # fmt: skip
