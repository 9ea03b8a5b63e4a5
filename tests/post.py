"""A real SMTP server on loopback, a worker that works what is there, and people to write to."""

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import msgspec
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server  # noqa: N811 - the policy above has the name
from aiosmtpd.smtp import AuthResult

import papers
from kept import Kept
from paqett import app, db, jobs
from paqett.app import Services
from paqett.db import Connection
from paqett.settings import Settings
from paqett.worker import process
from ports import free_port
from support import with_url


class Post:
    """What the server took, and how it answers."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.refuse_recipient: str | None = None
        self.refuse_data: str | None = None
        self.signed_in: list[bytes] = []
        self.over_tls: list[bool] = []
        self.on_data: Callable[[], None] = lambda: None

    @property
    def mails(self) -> list[EmailMessage]:
        return [read(raw) for raw in self.raw]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it so
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if self.refuse_recipient:
            return self.refuse_recipient.format(address)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.on_data()
        if self.refuse_data:
            return self.refuse_data
        self.over_tls.append(session.ssl is not None)
        self.raw.append(envelope.content)
        self.recipients.append(envelope.rcpt_tos)
        return "250 taken"

    def authenticate(self, *words: Any) -> AuthResult:
        self.signed_in.append(words[4].login)
        right = words[4].password == b"right"
        return AuthResult(success=right, handled=right)  # else the server answers 535


class Office(Controller):
    """aiosmtpd, with STARTTLS where a context is given, or TLS from the first byte."""

    def __init__(
        self, post: Post, starttls: ssl.SSLContext | None, tls: ssl.SSLContext | None
    ) -> None:
        self.starttls = starttls
        self.post = post
        super().__init__(post, hostname="127.0.0.1", port=free_port(18700), ssl_context=tls)

    def factory(self) -> Server:
        return Server(
            self.handler, enable_SMTPUTF8=True, tls_context=self.starttls,
            require_starttls=self.starttls is not None, authenticator=self.post.authenticate,
            auth_require_tls=self.ssl_context is None,
        )  # fmt: skip


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context for `name` (a host or an address), and the file that makes it trusted."""
    chain, secret = papers.write(folder, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, secret)
    return context, chain


class Postman:
    """A worker that works every job there is, with a clock of the test's."""

    def __init__(self, url: str, folder: Path) -> None:
        self.environ = {
            "PAQETT_PAQETT__DATA_DIR": str(folder / "data"),
            "PAQETT_PAQETT__PUBLIC_URL": "https://telemetry.example.org/",
        }
        self._kept = Kept()
        self.url = url
        self.folder = folder / "data" / "mail"
        self.now = datetime.now(UTC)

    def through(self, office: Office, tls: str = "none", **more: str) -> None:
        """Send by SMTP from now on."""
        self.environ |= {
            "PAQETT_MAIL__SMTP_HOST": "127.0.0.1",
            "PAQETT_MAIL__SMTP_PORT": str(office.port),
            "PAQETT_MAIL__SMTP_TLS": tls,
            "PAQETT_MAIL__TIMEOUT_S": "5",
            **more,
        }

    @property
    def settings(self) -> Settings:
        return with_url(self.url, **self.environ)

    def do(self, task: Callable[[Services], Coroutine[Any, Any, Any]]) -> Any:
        """Something with a worker's services."""

        async def run() -> Any:
            return await task(await self._kept.once(f"services {self.environ}", self._services))

        return self._kept.run(run())

    def _services(self) -> AbstractAsyncContextManager[Services]:
        return app.services(self.settings, "test", lambda: self.now)

    def with_queue(self, task: Callable[[Any, Services], Coroutine[Any, Any, Any]]) -> Any:
        """Something with procrastinate's application, our tasks in it."""

        async def run(services: Services) -> Any:
            @asynccontextmanager
            async def opened() -> AsyncIterator[Any]:
                queue = jobs.app(self.settings.database)
                async with queue.open_async():
                    process.register(queue, services)
                    yield queue

            return await task(await self._kept.once(f"queue {self.environ}", opened), services)

        return self.do(run)

    def work(self) -> None:
        """Work until no job is due."""
        self.later(milliseconds=1)  # so that the names of written mails are in order
        self.with_queue(lambda queue, services: process.work(queue, services, wait=False))

    def write(self, work: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
        """Something in a transaction of the API's."""

        async def run(services: Services) -> Any:
            async with db.transaction(services.pool) as conn:
                return await work(conn)

        return self.do(run)

    def later(self, **time: float) -> None:
        """Move the clock."""
        self.now += timedelta(**time)

    def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database, or change it."""
        found = self._kept.looking(self.url).execute(text, values)
        return found.fetchall() if found.description is not None else []

    def due(self) -> None:
        """Let jobs that wait for another try be due."""
        self.rows("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")

    def written(self) -> list[EmailMessage]:
        """The mails in the folder, oldest first."""
        return [read(path.read_bytes()) for path in sorted(self.folder.glob("*.eml"))]


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, _class=EmailMessage, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def plain(mail: EmailMessage) -> str:
    """The words of a mail's plain form."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def html(mail: EmailMessage) -> str:
    """The HTML form."""
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


class Person(msgspec.Struct):
    """An account."""

    id: int
    email: str
