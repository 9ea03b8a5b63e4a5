"""Every page there is."""

from paqett.web.pages import (
    alerts,
    channels,
    grafana,
    keys,
    notices,
    plan,
    public,
    settings,
    sign_in,
)

PAGES = (
    *public.HANDLERS, *sign_in.HANDLERS, *settings.HANDLERS, *keys.HANDLERS, *grafana.HANDLERS,
    *plan.HANDLERS, *alerts.HANDLERS, *channels.HANDLERS, *notices.HANDLERS,
)  # fmt: skip
