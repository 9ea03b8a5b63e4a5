"""Plain pages one can click: Checkout, the portal, and the switches."""

from datetime import UTC, datetime
from html import escape

from paqett.local.fake_stripe.objects import Json
from paqett.local.fake_stripe.state import FakeStripe
from paqett.local.fake_stripe.webhooks import Switches

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui;max-width:38rem;margin:3rem auto;padding:0 1rem}}
button,select,input{{font:inherit;padding:.4rem .8rem;margin:.2rem .2rem .2rem 0}}
.note{{background:#fff3cd;padding:.6rem 1rem}}td{{padding-right:1rem}}</style>
<p class="note">A fake Stripe for trying things out: no money moves.</p>
<h1>{title}</h1>{body}</html>"""
# what the portal's buttons do; the last four are what time and banks do
ACTIONS = {
    "cancel_later": "Cancel at the period's end",
    "keep": "Do not cancel",
    "cancel": "Cancel at once",
    "settle": "Pay the open invoice",
    "renew": "The next period begins, and is paid",
    "decline": "The next period begins, and the card is declined",
    "give_up": "Give up: cancelled for want of payment",
    "end_period": "The period ends, and what was cancelled ends",
}
_FITS = {
    "cancel_later": ("active", "trialing", "past_due"),
    "keep": ("active", "trialing", "past_due"),
    "cancel": ("active", "trialing", "past_due", "unpaid", "paused"),
    "settle": ("past_due", "unpaid"),
    "renew": ("active", "trialing"),
    "decline": ("active", "trialing"),
    "give_up": ("past_due", "unpaid"),
    "end_period": ("active", "trialing", "past_due"),
}


def page(title: str, body: str) -> str:
    """One page."""
    return _PAGE.format(title=escape(title), body=body)


def money(price: Json) -> str:
    """As people read it."""
    amount = f"{price['unit_amount'] / 100:.2f} {price['currency'].upper()}"
    return f"{amount} a {price['recurring']['interval']}"


def checkout(fake: FakeStripe, session: Json, *, declined: bool = False) -> str:
    """Where a plan is paid."""
    if session["status"] != "open":
        return page("Checkout", f"<p>This Checkout is {escape(session['status'])}.</p>")
    price = fake.prices[fake.orders[session["id"]]["price"]]
    refused = "<p><strong>Your card was declined.</strong></p>" if declined else ""
    back = escape(session["cancel_url"] or "/", quote=True)
    return page(
        "Checkout",
        f"<p>{escape(str(price['lookup_key']))}: {money(price)}</p>{refused}"
        '<form method="post"><label>Card <select name="card">'
        '<option value="4242424242424242">4242 4242 4242 4242</option>'
        '<option value="4000000000000002">4000 0000 0000 0002, which is declined</option>'
        f'</select></label> <button>Subscribe</button></form><p><a href="{back}">Back</a></p>',
    )


def portal(fake: FakeStripe, session: Json) -> str:
    """Where a subscription is looked after."""
    found = [s for s in fake.subscriptions.values() if s["customer"] == session["customer"]]
    back = escape(session["return_url"] or "/", quote=True)
    body = "".join(_subscription(one) for one in found) or "<p>Nothing was bought.</p>"
    return page("Your subscriptions", f'{body}<p><a href="{back}">Back</a></p>')


def _subscription(one: Json) -> str:
    item = one["items"]["data"][0]
    until = datetime.fromtimestamp(item["current_period_end"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    ends = " It ends then." if one["cancel_at_period_end"] else ""
    buttons = "".join(
        f'<button name="do" value="{name}">{escape(label)}</button>'
        for name, label in ACTIONS.items()
        if one["status"] in _FITS[name] and one["cancel_at_period_end"] != (name == "cancel_later")
        and (name != "keep" or one["cancel_at_period_end"])
    )  # fmt: skip
    return (
        f"<h2>{money(item['price'])}</h2><p>Status <strong>{escape(one['status'])}</strong>, the"
        f' period ends on {until}.{ends}</p><form method="post">'
        f'<input type="hidden" name="subscription" value="{one["id"]}">{buttons}</form>'
    )


def switches(fake: FakeStripe, set_to: Switches) -> str:
    """The operator's page: what goes wrong with webhooks, and what there is."""
    boxes = "".join(
        f'<p><label><input type="checkbox" name="{name}"{" checked" if on else ""}> {label}'
        "</label></p>"
        for name, on, label in (
            ("reorder", set_to.reorder, "out of order"),
            ("lose", set_to.lose, "never"),
            ("bad_signature", set_to.bad_signature, "with a wrong signature"),
        )
    )
    rows = "".join(
        f"<tr><td>{escape(str(fake.customers[s['customer']]['email']))}</td>"
        f"<td>{escape(s['status'])}</td><td>{s['id']}</td></tr>"
        for s in fake.subscriptions.values()
    )
    return page(
        "Fake Stripe",
        '<h2>Webhooks are sent</h2><form method="post">'
        f'<p><label><input name="copies" type="number" min="1" max="9" value="{set_to.copies}">'
        ' times each</label></p><p><label><input name="delay_s" type="number" min="0" max="600"'
        f' step="any" value="{set_to.delay_s:g}"> seconds late</label></p>{boxes}'
        f"<button>Set</button></form><h2>Subscriptions</h2><table>{rows}</table>",
    )
