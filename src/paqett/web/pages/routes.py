"""Every page there is."""

from paqett.web.pages import public, sign_in

PAGES = (*public.HANDLERS, *sign_in.HANDLERS)
