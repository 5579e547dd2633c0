"""How a message is sent, step by step, for both twins: whom to take, when to try again, what became of it.

Standards: RFC 6409 (submission), RFC 5321 section 4.2.4.2 (a lost answer), RFC 9525 (names).
Promises: no message is sent twice: what is tried again had not left; a refusal is a result; passwords and tokens go
through TLS only, to a server whose name was checked (or not, by choice); every connection is given back or closed.
Dangers: the steps are `async` but know no event loop: the blocking twin runs them with an `Io` that never waits, so
nothing here may await anything but its `Io` and its `Line`.
Not here: sockets (`mailer.client`, `mailer.async_client`), the octets (`mailer.sending.wire`), wordings
(`mailer.sending.remedies`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from outgate.mailer.config import MailConfig
from outgate.mailer.sending import remedies
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.idle import Held, Idle
from outgate.mailer.sending.result import SendResult, refused_by, result_of
from outgate.mailer.sending.target import Target
from outgate.mailer.sending.wire import Letter
from outgate.mailer.values import ConfigError
from outgate.smtp.connecting import ConnectFailed
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.masks import Masks
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step, Transaction, TransactionResult

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["password", "token"]
_BAD_LOGIN = 535
_LOGGED_OUT = frozenset({530, 535})
_GOODBYE = 1.0  # seconds for the answer to a QUIT that a `send` waits for
_GOODBYES = 10.0  # for those of a `close`


@dataclass(frozen=True, slots=True)
class Login:
    """What a server is told at AUTH."""

    kind: Kind
    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is decided before anything is dialled. `check_names` False is "chain-only". `seconds`: a whole send."""

    config: MailConfig
    target: Target
    check_names: bool
    seconds: float


class Session(Protocol):
    """What is known of a connection, whichever client has it."""

    @property
    def extensions(self) -> Mapping[str, str]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def greeting_steps(self) -> tuple[Step, ...]: ...
    @property
    def certificate_names(self) -> tuple[str, ...]: ...


class Line(Protocol):
    """A connection that has said EHLO, and is logged in if that was asked."""

    @property
    def session(self) -> Session: ...

    def usable(self) -> bool:
        """Say whether the peer is still there, as far as that can be seen without asking it."""
        ...

    async def transact(self, transaction: Transaction, seconds: float) -> TransactionResult:
        """Make one transaction within `seconds`; what goes wrong is an `error` in its result."""
        ...

    async def quit(self, seconds: float) -> None:
        """Say goodbye, wait for the answer for `seconds` at most, and close."""
        ...

    def close(self) -> None:
        """Close at once."""
        ...


class Io(Protocol):
    """What waits, in one way or the other."""

    def now(self) -> float:
        """Return seconds of a clock that only moves forward."""
        ...

    async def turn(self, seconds: float) -> bool:
        """Wait for a place among the connections in use; False if none came free within `seconds`."""
        ...

    def free(self) -> None:
        """Give the place back."""
        ...

    async def composed(self, letter: Letter, extensions: Mapping[str, str]) -> bytes:
        """Return the letter as octets for a server with `extensions`. Raises `MessageError`."""
        ...

    async def dial(self, login: Login | None, *, check_name: bool, seconds: float) -> Line:
        """Connect, begin TLS as configured, log in. Raises `ConnectFailed`; a login that was refused has stage "auth"
        and the server's reply."""
        ...

    async def token(self, seconds: float) -> str:
        """Return an access token within `seconds`. Raises `SendFailed`."""
        ...

    def forget_token(self, token: str) -> None:
        """Have the next token fetched anew, if this is still the last."""
        ...


class _Refused(Exception):
    """The server ended the session before any message."""

    def __init__(self, reply: Reply, stage: str, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.reply, self.stage, self.steps = reply, stage, steps


class Sender:
    """One service's way to send. `told` gets each conversation, with secrets masked, when `debug.email` is on."""

    def __init__(self, plan: Plan, io: Io, idle: Idle[Line], told: Callable[[tuple[Step, ...]], None]) -> None:
        self._plan = plan
        self._io = io
        self._idle = idle
        self._told = told
        self._masks = Masks()
        self._masked = ""

    async def send(self, letter: Letter) -> SendResult:
        """Send a letter. Raises `MessageError`, `ConfigError` or `SendFailed`."""
        io = self._io
        until = io.now() + self._plan.seconds
        if not await io.turn(self._plan.seconds):
            text = f"{self._label}: all connections were in use for {self._plan.seconds:g} s. Allow more of them"
            raise SendFailed(text, server=self._label, stage="waiting")
        try:
            return await self._carry(letter, until)
        except _Refused as refused:
            steps = self._tell(refused.steps)
            return refused_by(
                refused.reply,
                letter.recipients,
                stage=refused.stage,
                masks=self._masks,
                server=self._label,
                conversation=steps,
            )
        finally:
            io.free()

    async def close(self) -> None:
        """Say goodbye on the connections that are open; those in use are closed when they come back."""
        until = self._io.now() + _GOODBYES
        for line in self._idle.forget():
            if line.usable():
                await line.quit(max(0.0, until - self._io.now()))
            else:
                line.close()

    @property
    def _label(self) -> str:
        return self._plan.target.label

    # -- a letter on a connection ---------------------------------------------------------------------------

    async def _carry(self, letter: Letter, until: float) -> SendResult:
        held = self._reusable()
        if held is not None:
            first = held.messages == 0
            result = await self._once(held, letter, until)
            if not (held.line.session.closed and _unseen(result)):
                return self._settle(held.line, result, first=first)
            # The server had gone, or went because of the messages before: nothing of this one has left.
        held = self._idle.hold(await self._open(until))
        return self._settle(held.line, await self._once(held, letter, until), first=True)

    def _reusable(self) -> Held[Line] | None:
        now = self._io.now()
        for line in self._idle.expired(now):
            line.close()
        while (held := self._idle.take()) is not None:
            if held.line.usable():
                return held
            held.line.close()
        return None

    async def _once(self, held: Held[Line], letter: Letter, until: float) -> TransactionResult:
        line = held.line
        extensions = line.session.extensions
        try:
            data = await self._io.composed(letter, extensions)
            transaction = Transaction(
                letter.sender,
                letter.recipients,
                (data,),
                body_8bit="8BITMIME" in extensions and not data.isascii(),
                smtputf8=letter.utf8,
                size=len(data),
            )
            result = await line.transact(transaction, max(0.0, until - self._io.now()))
        except LocalProtocolError as error:
            line.close()
            raise MessageError(str(error)) from None
        except MessageError:
            if not self._idle.keep(held, self._io.now()):
                line.close()
            raise
        except BaseException:
            line.close()
            raise
        # Behind this it may be in use again: `result` is all that counts.
        held.messages += 1
        if line.session.closed or _logged_out(result):
            line.close()  # the session is over: its socket goes too
        elif not self._idle.keep(held, self._io.now()):
            # The message has its answer: whoever waits for it does not wait long for a farewell.
            await line.quit(max(0.0, min(_GOODBYE, until - self._io.now())))
        return result

    def _settle(self, line: Line, result: TransactionResult, *, first: bool) -> SendResult:
        steps: tuple[Step, ...] = ()
        if self._plan.config.debug:
            steps = self._tell((*(line.session.greeting_steps if first else ()), *result.steps))
        replies: dict[str, Reply] = {}
        for index, recipient in enumerate(result.transaction.recipients):
            reply = result.reply_for(index)
            if reply is None:
                raise self._broken(result)
            replies[recipient] = reply
        return result_of(replies, result.final, masks=self._masks, server=self._label, conversation=steps)

    def _broken(self, result: TransactionResult) -> SendFailed:
        lost = result.sent_all
        text = f"{self._label}: {self._masks.text(result.error) or 'the server gave no answer'}"
        if lost:
            text += "; the whole message was sent, so it may have arrived"
        stage = "answer" if lost else "content" if result.data is not None else "envelope"
        return SendFailed(text, server=self._label, stage=stage, may_have_arrived=lost)

    # -- a connection ---------------------------------------------------------------------------------------

    async def _open(self, until: float) -> Line:
        """Connect and log in. Raises `SendFailed`, `ConfigError` or `_Refused`."""
        plan = self._plan
        target = plan.target
        if plan.check_names and target.through_tunnel and target.forward is None and plan.config.tls != "none":
            raise await self._unknown_forward(until)
        login = await self._login(until)
        try:
            return await self._dial(login, until)
        except ConnectFailed as error:
            failed = error
        if login is not None and login.kind == "token" and failed.reply and failed.reply.code == _BAD_LOGIN:
            self._io.forget_token(login.secret)  # it may have been withdrawn before its time
            try:
                return await self._dial(await self._login(until), until)
            except ConnectFailed as error:
                failed = error
        # Not from within `except`: what has failed remembers calls that were given the password.
        raise self._failed(failed)

    async def _dial(self, login: Login | None, until: float) -> Line:
        left = max(0.0, until - self._io.now())
        return await self._io.dial(login, check_name=self._plan.check_names, seconds=left)

    async def _login(self, until: float) -> Login | None:
        config = self._plan.config
        if not config.user:
            return None
        if not config.oauth:
            self._hide(config.password)
            return Login("password", config.user, config.password)
        token = await self._io.token(max(0.0, until - self._io.now()))
        self._hide(token)
        return Login("token", config.user, token)

    def _hide(self, secret: str) -> None:
        if secret != self._masked:
            self._masks = Masks(self._plan.config.user, secret, *([self._masked] if self._masked else []))
            self._masked = secret

    def _failed(self, error: ConnectFailed) -> Exception:
        if error.reply is not None:
            return _Refused(error.reply, error.stage, error.steps)
        self._tell(error.steps)
        text = remedies.failure(self._plan.target, self._plan.config, error, self._masks.text(str(error)))
        return SendFailed(text, server=self._label, stage=error.stage)

    async def _unknown_forward(self, until: float) -> ConfigError:
        """Say that the port's forward is not known and, from a look at the certificate, what it might be."""
        text = remedies.unknown_forward(self._plan.target)
        try:
            line = await self._io.dial(None, check_name=False, seconds=max(0.0, until - self._io.now()))
        except ConnectFailed as error:
            return ConfigError(f"{text}. A look at the server behind it failed: {error}", name="smtp.port")
        names = line.session.certificate_names
        await line.quit(_GOODBYE)
        return ConfigError(f"{text}. {remedies.behind(names)}", name="smtp.port")

    def _tell(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if not self._plan.config.debug:
            return ()
        masks = self._masks
        shown = tuple([Step(step.at, masks.text(step.did), masks.text(step.reply)) for step in steps])
        self._told(shown)
        return shown


def _unseen(result: TransactionResult) -> bool:
    """Say whether a connection that was kept has failed before it could have the message: another may have it then."""
    if result.sent_all or result.broken:
        return False
    if _logged_out(result):
        return True
    replies = (result.mail, result.data, *result.recipients)
    return bool(result.error) or any(reply is not None and reply.code == 421 for reply in replies)


def _logged_out(result: TransactionResult) -> bool:
    """Say whether the server wants a login, or another: on a connection that was kept, the one it had has ended."""
    return result.mail is not None and result.mail.code in _LOGGED_OUT
