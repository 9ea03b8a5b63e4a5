"""What only asking tells: the mail server, Stripe, the broker's rules, the public address."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from paqett import mail_transport
from paqett.billing.client import Stripe, check_receiving
from paqett.billing.problems import StripeUnavailable
from paqett.doctor.findings import Finding
from paqett.doctor.server import clock_finding
from paqett.errors import ConfigurationError
from paqett.mqtt.clearing import BrokerAway
from paqett.mqtt.probe import Tried, probe
from paqett.plans import Plan
from paqett.settings import Settings

_PATIENCE_S = 10.0
_LONGEST_S = 60.0  # whatever somebody does to keep us waiting
_WELL = b"ok\n"
_DATE_GRAIN = timedelta(seconds=2)  # it has whole seconds, and servers keep theirs for one


async def examine_others(
    settings: Settings, plans: Iterable[Plan], clock: Callable[[], datetime]
) -> list[Finding]:
    """Mail, Stripe, broker and address, asked at the same time; nothing is sent or changed."""
    found = await asyncio.gather(
        _in_time("mail server", _mail(settings)),
        _in_time("stripe", _prices(settings, plans)),
        _in_time("broker rules", _broker(settings)),
        _in_time("address", _address(settings, clock)),
    )
    return [finding for part in found for finding in part]


async def _in_time(subject: str, asking: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(_LONGEST_S):
            return await asking
    except TimeoutError:
        detail = f"no whole answer within {_LONGEST_S:.0f} s"
        return [Finding(subject, "failed", detail, "see what is really there, and its own log")]


async def _mail(settings: Settings) -> list[Finding]:
    mail = settings.mail
    if not mail.smtp_host:
        return []
    where = f"{mail.smtp_host}:{mail.smtp_port}"
    try:
        mail_transport.check(mail)
        await mail_transport.try_out(mail)
    except ConfigurationError:
        return []  # said of the settings already
    except mail_transport.MailDelayed as error:
        mend = "see [mail]: host, port, smtp_tls, user, password; SSL_CERT_FILE names an authority"
        return [Finding("mail server", "failed", f"{where}: {error}", mend)]
    signed_in = f", signed in as {mail.smtp_username}" if mail.smtp_username else ""
    return [Finding("mail server", "ok", f"{where} answers by {mail.smtp_tls}{signed_in}")]


async def _prices(settings: Settings, plans: Iterable[Plan]) -> list[Finding]:
    sold = {plan.stripe_lookup_key: plan.name for plan in plans if plan.stripe_lookup_key}
    if not settings.stripe.secret_key:
        return []
    try:
        check_receiving(settings.stripe)
        stripe = Stripe(settings.stripe)
    except ConfigurationError as error:
        return [Finding("stripe", "failed", str(error), "change the settings in [stripe]")]
    try:
        lacking = [key for key in sold if await stripe.price(key) is None]
    except StripeUnavailable as error:
        mend = "see stripe.secret_key and what a restricted key may do (docs/billing.md)"
        return [Finding("stripe", "failed", str(error), mend)]
    finally:
        await stripe.close()
    if lacking:
        detail = f"no active recurring price with the lookup key {', '.join(lacking)}"
        mend = "make it at Stripe, or change stripe_lookup_key in the plans"
        return [Finding("stripe", "failed", detail, mend)]
    return [Finding("stripe", "ok", f"answers; prices for {', '.join(sold.values()) or 'none'}")]


async def _broker(settings: Settings) -> list[Finding]:
    mqtt = settings.mqtt
    if mqtt.share_group or settings.broker.kind != "mosquitto":
        detail = f"{mqtt.host}:{mqtt.port} is not Paqett's own: its rules are its own to prove"
        return [Finding("broker rules", "ok", detail)]
    if not mqtt.password:
        detail = "not tried: mqtt.password is not set here"
        return [Finding("broker rules", "warning", detail, "run this with ingest's settings")]
    try:
        tried = await probe(mqtt, settings.broker)
    except BrokerAway as error:
        detail = f"{mqtt.host}:{mqtt.port}, devices' {settings.broker.listen_port}: {error}"
        mend = "start `paqett broker` with the same mqtt.password"
        return [Finding("broker rules", "failed", detail, mend)]
    return [rules_finding(tried)]


def rules_finding(tried: Tried) -> Finding:
    """What a device must not be able to do, and could."""
    wrong = []
    if tried.nameless:
        wrong.append("lets in whoever gives no name")
    if tried.guessed:
        wrong.append("lets in a wrong secret")
    if tried.heard:
        wrong.append(f"lets a device read {', '.join(tried.heard)}")
    if tried.wrote:
        wrong.append("lets a device write below another's prefix")
    if not tried.hears_own:
        wrong.append("keeps a device from its own errors")
    if wrong:
        mend = "run the broker by `paqett broker`, on the files it writes and no others"
        return Finding("broker rules", "failed", f"it {'; '.join(wrong)}", mend)
    return Finding("broker rules", "ok", "a device reads and writes its own topics alone (tried)")


async def _address(settings: Settings, clock: Callable[[], datetime]) -> list[Finding]:
    """The address people use, as they reach it: name, certificate, proxy, and its Date."""
    if not settings.paqett.public_url:
        return []
    url = f"{settings.public_url}/healthz"
    mend = "see paqett.public_url, the name's entry in DNS, the proxy and its certificate"
    try:
        async with (
            asyncio.timeout(_PATIENCE_S),
            httpx.AsyncClient(verify=ssl.create_default_context(), timeout=_PATIENCE_S) as client,
            client.stream("GET", url) as answer,
        ):
            body = await _beginning(answer)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        what = str(error) or type(error).__name__
        return [Finding("address", "failed", f"{url}: {what}", mend)]
    if answer.status_code != 200 or body != _WELL:
        detail = f"{url} answers {answer.status_code}, and not as Paqett does"
        return [Finding("address", "failed", detail, mend)]
    found = [Finding("address", "ok", f"{settings.public_url} leads here")]
    now = clock()
    theirs = _said_time(answer.headers.get("date", ""), now)
    if theirs is not None:
        found.append(clock_finding(f"what {settings.public_url} says", theirs, now))
    return found


async def _beginning(answer: httpx.Response) -> bytes:
    """As much of the body as tells whether it is ours."""
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > len(_WELL):
            break
    return body


def _said_time(date: str, now: datetime) -> datetime | None:
    """What a `Date` says at best for its clock; None where it says nothing."""
    try:
        said = parsedate_to_datetime(date)
        said = said if said.tzinfo else said.replace(tzinfo=UTC)
        return min(max(now, said), said + _DATE_GRAIN)
    except (ValueError, TypeError, OverflowError):
        return None
