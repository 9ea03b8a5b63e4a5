"""Every page there is."""

from paqett.web.pages import (
    admin,
    alerts,
    channels,
    deletion,
    docs,
    grafana,
    keys,
    notices,
    plan,
    privacy,
    public,
    settings,
    sign_in,
)

PAGES = (
    *public.HANDLERS, *docs.HANDLERS, *privacy.HANDLERS, *sign_in.HANDLERS, *settings.HANDLERS,
    *keys.HANDLERS, *grafana.HANDLERS, *plan.HANDLERS, *alerts.HANDLERS, *channels.HANDLERS,
    *notices.HANDLERS, *admin.HANDLERS, *deletion.HANDLERS,
)  # fmt: skip
