"""E-mail by SMTP, with the standard library in a few threads of its own: one message, one connection.

The server is the operator's, from the settings; only the addressee is somebody else's. Nothing is sent in the clear
unless the address says so: `smtps://` is TLS from the start, `smtp://` must offer STARTTLS unless `?starttls=false`.
"""

import asyncio
import smtplib
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from urllib.parse import parse_qs, unquote, urlsplit

from workers.delivery.outcome import Delivered, Failed, Outcome

THREADS = 4


class Mailer:
    """`url` None: no server is known, and every e-mail waits for one."""

    def __init__(self, url: str | None, *, sender: str, timeout_s: float) -> None:
        self._url, self._sender, self._timeout_s = url, sender, timeout_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mail")

    async def send(self, to: str, subject: str, text: str, *, message_id: str) -> Outcome:
        """What the server said. `message_id` is the same at every attempt: mailboxes know a message by it."""
        if self._url is None:
            return Failed(code="no_mail_server", message="SWITCHBOARD_SMTP_URL is not set", blame=False)
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Message-ID"] = f"<{message_id}@{self._sender.partition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies, please
        message.set_content(text)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, _hand_over, self._url, message, self._timeout_s)
        except smtplib.SMTPRecipientsRefused as error:
            ((code, said),) = error.recipients.values()
            return _refused(code, said)
        except smtplib.SMTPResponseException as error:
            return _refused(error.smtp_code, error.smtp_error)
        except (smtplib.SMTPException, OSError) as error:
            return Failed(code="mail_server", message=f"{type(error).__name__}: {error}"[:200], blame=False)
        return Delivered()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _hand_over(url: str, message: EmailMessage, timeout_s: float) -> None:
    parts = urlsplit(url)
    options: Mapping[str, list[str]] = parse_qs(parts.query)
    tls, host = ssl.create_default_context(), parts.hostname or ""
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, parts.port or 465, timeout=timeout_s, context=tls)
    else:
        server = smtplib.SMTP(host, parts.port or 587, timeout=timeout_s)
    with server:
        if parts.scheme == "smtp" and options.get("starttls", ["true"])[-1] != "false":
            server.starttls(context=tls)
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)


def _refused(code: int, said: bytes | str) -> Failed:
    """RFC 5321 §4.2.1: 4xx may be tried again, 5xx may not."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    message = "".join(c if c.isprintable() else " " for c in f"answered {code}: {text}")[:200]
    return Failed(code="rejected", message=message, final=code >= 500, blame=False)
