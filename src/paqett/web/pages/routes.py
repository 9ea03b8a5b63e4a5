"""Every page there is."""

from paqett.web.pages import (
    admin,
    alerts,
    channels,
    deletion,
    docs,
    grafana,
    keys,
    leaving,
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
    *notices.HANDLERS, *admin.HANDLERS, *leaving.HANDLERS, *deletion.HANDLERS,
)  # fmt: skip
