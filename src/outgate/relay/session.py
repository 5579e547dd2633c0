"""A submission session: what the machine asks, answered from the rule book and the queue.

Standards: RFC 6409; order of evaluation: design section 5.
Promises: a message is answered 250 only from the queue's own call that says it is on disk; permissions are
looked at again before every command; each refusal is logged with its reason and remedy; what a login has to wait
for waits on the event loop, in a bounded number of places.
Dangers: answers may come late (password check, commit): the session may be gone by then, and then nothing
is answered; the message, if it was stored, is delivered all the same (RFC 5321 section 4.5.3.2.6).
Not here: the rules (`relay.policy`), bytes (`smtp.server`).
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.ids import queue_id
from outgate.base.log import Log
from outgate.model.flow import Accepted, Client, Recipient, Submission
from outgate.model.tenancy import Sender
from outgate.relay import policy
from outgate.relay.access import AccessTable, Decision
from outgate.relay.checking import Checking
from outgate.relay.credentials import Busy, Credentials
from outgate.relay.endpoints import Door, Endpoints
from outgate.relay.guessing import Guessing, Slowed
from outgate.relay.policy import Case, Facts, Refused, Unfinished
from outgate.relay.quota import Quotas
from outgate.relay.turns import Places
from outgate.smtp.content import Intake
from outgate.smtp.events import (
    Aborted,
    Authenticate,
    Closed,
    Connected,
    Event,
    MailFrom,
    MessageReceived,
    Question,
    RcptTo,
)
from outgate.smtp.fairness import source_of
from outgate.smtp.reply import Reply, reply
from outgate.smtp.sasl import Login
from outgate.smtp.server import (
    AUTH_FAILED,
    AUTH_OK,
    LATER,
    RECIPIENT_OK,
    SENDER_OK,
    Limits,
    ServerMachine,
)

_log = Log("outgate.session")
_AUTH_LATER = reply(454, "4.7.0", "Temporary authentication failure")
_TOO_MANY_LOGINS = reply(421, "4.7.0", "Too many failed logins, closing")
_FAILED_LOGINS = 3
_LATE_ANSWERS = 100
_LOGGED_NAME = 64
_VOID = Refused(
    policy.WITHDRAWN,
    "the password or API key that logged in is good no longer, or its user is deleted",
    "log in with one that is: a rotation has ended its overlap, or a key was deleted, bound or left without the role",
)


class Acceptor(Protocol):
    """Where accepted messages go (`relay.queue`)."""

    def accept(self, accepted: Accepted, done: Callable[[Exception | None], None]) -> None:
        """Store a message and call `done` on the event loop once it is on disk, or could not be."""
        ...


@dataclass(slots=True)
class Relay:
    """What all sessions share. `access` is replaced, never changed, when zones or rules change."""

    endpoints: Endpoints
    shard: str
    clock: Clock
    access: AccessTable
    credentials: Credentials
    queue: Acceptor
    limits: Limits
    lifetime: float
    call_soon: Callable[[Callable[[], None]], object]
    """Run a callable on the event loop, from any thread."""
    call_later: Callable[[float, Callable[[], None]], object]
    """Run a callable on the event loop after some seconds; on the loop only."""
    guessing: Guessing = field(default_factory=Guessing)
    late_answers: Places = field(default_factory=lambda: Places(_LATE_ANSWERS))
    """Places for logins that are made to wait; a source never holds more than it leaves free."""
    replace_bare_line_ends: bool = False
    quotas: Quotas = field(default_factory=Quotas)
    checking: Checking = field(default_factory=Checking)
    suppressed: Callable[[str, Sequence[Recipient]], Mapping[str, str]] = policy.nobody
    """Tells which recipients an instance's mail is not sent to, and why; raises `sqlite3.Error`."""
    intake: Intake = field(default_factory=Intake)
    may_be_dialled: Callable[[str], bool] = lambda _address: False
    """Whether mail may go to an address that is a recipient's domain."""

    def welcomes(self, address: str, endpoint: str, vpc: str = "") -> bool:
        """Say whether to begin TLS with a client of the implicit port; a refusal is logged, nobody else could."""
        decision = self.access.welcome(address, endpoint, vpc)
        if not decision.allowed:
            _log_decision(decision, Client(address, 0, endpoint, "submissions", vpc=vpc))
        return decision.allowed


class SubmissionSession:
    """One session of one client."""

    __slots__ = (
        "_access",
        "_door",
        "_ended",
        "_failed_logins",
        "_id",
        "_leaving",
        "_mail",
        "_recipients",
        "_relay",
        "_resume",
        "_sender",
        "_tls",
        "_tls_text",
        "client",
        "machine",
    )

    def __init__(
        self,
        relay: Relay,
        door: Door,
        client: Client,
        resume: Callable[[], None],
        tls: Callable[[], str],
        *,
        implicit_tls: bool,
    ) -> None:
        """`door` is where the client came in; `resume` makes the connection go on after a late answer; `tls` tells
        protocol and cipher."""
        self._relay = relay
        self._door = door
        self._resume = resume
        self._tls = tls
        self._tls_text = ""
        self._access = relay.access
        self._id = queue_id("S", relay.clock.now())
        self._sender: Sender | None = None
        self._mail: MailFrom | None = None
        self._recipients: list[Recipient] = []
        self._failed_logins = 0
        self._ended = False
        self._leaving = False
        self.client = client
        self.machine = ServerMachine(
            door.host_name,
            limits=relay.limits,
            tls=implicit_tls,
            replace_bare_line_ends=relay.replace_bare_line_ends,
            intake=relay.intake,
            offer_dsn=True,
            offer_requiretls=True,
        )

    @property
    def sender(self) -> Sender | None:
        """Return who has logged in, as of the last look."""
        return self._sender

    def handle(self, event: Event) -> None:
        """Answer an event, now or later."""
        if isinstance(event, Closed):
            self._ended = True
            return
        if isinstance(event, Question) and not self._allowed_on():
            self.machine.answer(policy.WITHDRAWN)
            return
        match event:
            case MailFrom():
                self._mail_from(event)
            case RcptTo():
                self._rcpt_to(event)
            case MessageReceived():
                self._message(event)
            case Connected():
                self._connected()
            case Authenticate():
                self._authenticate(event)
            case Aborted():
                self._forget_mail()
                if self._leaving:
                    self.machine.close(policy.CLOSING)
            case _:  # TlsRequested is the shell's
                pass

    @property
    def is_current(self) -> bool:
        """Say whether this client was judged by the network rules of now."""
        return self._relay.access is self._access

    def _allowed_on(self) -> bool:
        return self.is_current or self.still_welcome()

    def still_logged_in(self) -> bool:
        """Look at the login again; say whether it is good, or there was none yet."""
        return self._sender is None or self._current_sender() is not None

    def still_welcome(self) -> bool:
        """Look at the network rules again; say whether this client may stay."""
        self._access = self._relay.access
        client = self.client
        if self._sender is not None:
            decision = self._access.decide(self._sender.instance.id, client.address, client.endpoint, client.vpc)
        else:
            decision = self._access.welcome(client.address, client.endpoint, client.vpc)
        _log_decision(decision, client, self._id, self._sender)
        if not decision.allowed:
            remedy = f"have every enabled rule of the instance name a zone that holds {client.address}, or accept it"
            reason = f"a zone or rule was changed, or an allow-list ended: {decision.reason}"
            self._refused("session.withdrawn", Refused(policy.WITHDRAWN, reason, remedy))
        return decision.allowed

    def leave(self) -> bool:
        """Begin no transaction more; say whether one is under way, whose answer the client is to have first."""
        self._leaving = True
        return self._mail is not None

    # -- the questions --------------------------------------------------------------------------------------

    def _connected(self) -> None:
        client = self.client
        decision = self._access.welcome(client.address, client.endpoint, client.vpc)
        _log_decision(decision, client, self._id)
        if decision.allowed:
            self.machine.answer(self._door.greeting)
            return
        refused = Refused(
            policy.NOT_WELCOME,
            decision.reason,
            "add the address to a network zone that an enabled rule for the SMTP API names",
        )
        self._refused("session.not_welcome", refused)
        self.machine.answer(refused.reply)

    def _authenticate(self, event: Authenticate) -> None:
        login, relay = event.login, self._relay
        if login.authorization in ("", login.username):
            known = relay.credentials.remembered(login.username, login.password)
            if known is not None:
                self._login_done(login, known, None)
                return
            if relay.credentials.is_remembered(login.username, login.password):
                self._check(login)
                return
        slowed = relay.guessing.before(login.username, self.client.address, relay.clock.now())
        if slowed is None:
            self._check(login)
        elif slowed.wait_s is None:
            self._failed_logins += 1
            self._log_slowed(login, slowed)
            self.machine.answer(self._login_refusal(_AUTH_LATER))
        else:
            self._slow(login, slowed, functools.partial(self._check, login))

    def _check(self, login: Login) -> None:
        # Nobody acts for another: that costs and reads like the password of a name that nobody has.
        name = login.username if login.authorization in ("", login.username) else ""

        def done(sender: Sender | None, error: Exception | None) -> None:
            self._relay.call_soon(functools.partial(self._login_late, login, sender, error))

        try:
            self._relay.credentials.check(name, login.password, done, source=source_of(self.client.address))
        except Busy:
            _log.warning(
                "login.busy",
                session=self._id,
                client=self.client.address,
                reason="as many logins wait to be checked as there are places for its address",
                remedy="find who sends so many, in `login.failed`; if all are right, raise relay.password_threads",
            )
            self.machine.answer(_AUTH_LATER)

    def _login_late(self, login: Login, sender: Sender | None, error: Exception | None) -> None:
        self._login_done(login, sender, error)
        if not self._ended:
            self._resume()

    def _slow(self, login: Login, slowed: Slowed, then: Callable[[], None]) -> None:
        """Go on with a login after a while; if too many wait already, end the session, or go on at once for a name
        that others have failed with."""
        relay, source = self._relay, source_of(self.client.address)
        if slowed.wait_s is None or not relay.late_answers.take(source):
            if slowed.for_others:
                then()
                return
            crowded = f"{slowed.reason}, and as many wait as there are places for its address"
            self._log_slowed(login, Slowed(None, crowded, slowed.remedy))
            self.machine.answer(_TOO_MANY_LOGINS)
            return
        self._log_slowed(login, slowed)

        def waited() -> None:
            # Not sooner when the client leaves: else it would get the next place by leaving.
            relay.late_answers.give_back(source)
            if not self._ended:
                then()
                self._resume()

        relay.call_later(slowed.wait_s, waited)

    def _login_failed(self, login: Login) -> None:
        relay, address = self._relay, self.client.address
        self._failed_logins += 1
        _log.warning(
            "login.failed",
            session=self._id,
            client=address,
            username=login.username[:_LOGGED_NAME],
            reason="no such user name, or neither its password nor an API key of its account with the role smtp",
            remedy="give the client a password that is good, or rotate it and use the new one",
        )
        digest = relay.credentials.digest(login.username, login.password)
        slowed = relay.guessing.failed(login.username, address, digest, relay.clock.now())
        if self._ended:  # whoever leaves at once has guessed all the same
            return
        answer = functools.partial(self.machine.answer, self._login_refusal(AUTH_FAILED))
        if slowed is None:
            answer()
        else:
            self._slow(login, slowed, answer)

    def _login_refusal(self, answer: Reply) -> Reply:
        return answer if self._failed_logins < _FAILED_LOGINS else _TOO_MANY_LOGINS

    def _log_slowed(self, login: Login, slowed: Slowed) -> None:
        _log.warning(
            "login.slowed",
            session=self._id,
            client=self.client.address,
            username=login.username[:_LOGGED_NAME],
            wait_s=slowed.wait_s,
            reason=slowed.reason,
            remedy=slowed.remedy,
        )

    def _login_done(self, login: Login, sender: Sender | None, error: Exception | None) -> None:
        client = self.client
        if sender is None and error is None:
            self._login_failed(login)
            return
        if self._ended:
            return
        if sender is None or error is not None:
            self.machine.answer(_AUTH_LATER)
            return
        elsewhere = policy.endpoint(sender.instance, self._door, self._relay.endpoints)
        if elsewhere is not None:
            self._refused("login.endpoint", elsewhere, login.username)
            self.machine.answer(elsewhere.reply)
            return
        self._access = self._relay.access  # they may have changed while the password was checked
        decision = self._access.decide(sender.instance.id, client.address, client.endpoint, client.vpc)
        _log_decision(decision, client, self._id, sender)
        if not decision.allowed:
            remedy = f"let a rule of instance {sender.instance.id} name a zone that holds {client.address}"
            self._refused("login.network", Refused(policy.NOT_ALLOWED, decision.reason, remedy))
            self.machine.answer(policy.NOT_ALLOWED)
            return
        self._sender = sender
        self.machine.on_account_of(sender.instance.account_id)
        self._relay.guessing.right(login.username, client.address, self._relay.clock.now())
        _log.debug("login.ok", session=self._id, username=login.username, key=sender.key_id, rule=decision.rule_id)
        self.machine.answer(AUTH_OK)

    def _mail_from(self, event: MailFrom) -> None:
        sender = self._current_sender()
        if sender is None:
            self.machine.answer(policy.WITHDRAWN)
            return
        refused = policy.reverse_path(sender, event.reverse_path)
        if refused is not None:
            self._refused("mail.refused", refused)
            self.machine.answer(refused.reply)
            return
        self._forget_mail()
        self._mail = event
        self.machine.answer(SENDER_OK)

    def _rcpt_to(self, event: RcptTo) -> None:
        path = event.forward_path
        refused = policy.forward_path(path, self._relay.may_be_dialled)
        if refused is not None:
            self._refused("rcpt.refused", refused)
            self.machine.answer(refused.reply)
            return
        self._recipients.append(Recipient(path.text, path.domain, event.notify, event.orcpt))
        self.machine.answer(RECIPIENT_OK)

    def _message(self, event: MessageReceived) -> None:
        mail, sender, relay = self._mail, self._current_sender(), self._relay
        if mail is None or sender is None:
            self.machine.answer(policy.WITHDRAWN)
            return
        now = relay.clock.now()
        submission = Submission(
            session_id=self._id,
            client=self.client,
            helo=self.machine.hello,
            tls=self._tls_text or self._ask_tls(),
            username=sender.credential.username,
            reverse_path=mail.reverse_path.text,
            recipients=tuple(dict.fromkeys(self._recipients)),
            content=event.content,
            received_at=now,
            body_8bit=mail.body_8bit,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            requiretls=mail.requiretls,
        )
        self._forget_mail()
        if self._leaving:
            self.machine.close(policy.CLOSING, answer_first=True)
        limits = relay.limits
        facts = Facts(
            sender,
            self._door.host_name,
            queue_id(relay.shard, now),
            now,
            relay.lifetime,
            relay.quotas,
            limits.recipients,
            limits.message,
            relay.suppressed,
        )
        try:
            verdict = policy.accept(submission, facts)
        except sqlite3.Error as error:
            self._unknown(facts, error)
            return
        if isinstance(verdict, Accepted):
            relay.queue.accept(verdict, functools.partial(self._stored, facts, verdict))
        elif isinstance(verdict, Refused):
            self._refused("message.refused", verdict)
            self.machine.answer(verdict.reply)
        else:
            self._look_inside(facts, verdict)

    def _unknown(self, facts: Facts, error: Exception) -> None:
        """Put a message off: whether its recipients are suppressed cannot be read."""
        remedy = "look at control.db and its disk; the client tries again"
        _log.error("message.suppression_unknown", queue_id=facts.queue_id, error=repr(error), remedy=remedy)
        self.machine.answer(LATER)

    def _look_inside(self, facts: Facts, verdict: Unfinished) -> None:
        """Have the rules that take long judged in a thread; the answer comes late."""
        instance_id = facts.sender.instance.id

        def done(found: Refused | str | None, error: Exception | None) -> None:
            self._relay.call_soon(functools.partial(self._looked_inside, facts, verdict.case, found, error))

        try:
            self._relay.checking.submit(instance_id, verdict.check, done)
        except Busy:
            _log.warning(
                "message.crowded",
                session=self._id,
                client=self.client.address,
                instance=instance_id,
                reason="as many messages wait for a look at their HTML or links as there are places for the instance",
                remedy="send less at once, smaller HTML, or List-Unsubscribe; or take the HTML check away "
                "(`outgate smtp html`)",
            )
            self.machine.answer(LATER)

    def _looked_inside(self, facts: Facts, case: Case, found: Refused | str | None, error: Exception | None) -> None:
        if self._ended:
            self.machine.let_go()
            return
        sender = self._current_sender()
        if sender is None:
            self.machine.answer(policy.WITHDRAWN)
        elif found is None:
            _log.error("message.check_failed", session=self._id, queue_id=facts.queue_id, error=repr(error))
            self.machine.answer(LATER)
        else:
            facts = replace(facts, sender=sender, now=self._relay.clock.now())
            try:
                verdict = policy.finish(case, found, facts) if isinstance(found, str) else found
            except sqlite3.Error as error:
                self._unknown(facts, error)
                self._resume()
                return
            if isinstance(verdict, Accepted):
                if verdict.warning:
                    reason = verdict.warning
                    _log.warning("message.warning", queue_id=verdict.queue_id, session=self._id, reason=reason)
                self._relay.queue.accept(verdict, functools.partial(self._stored, facts, verdict))
                return
            self._refused("message.refused", verdict)
            self.machine.answer(verdict.reply)
        self._resume()

    def _stored(self, facts: Facts, accepted: Accepted, error: Exception | None) -> None:
        if error is not None:
            policy.give_back(facts, accepted)
            _log.error("message.not_stored", queue_id=accepted.queue_id, error=repr(error))
        if self._ended:
            self.machine.let_go()
            return
        if error is None:
            self.machine.answer(reply(250, "2.0.0", f"Ok: queued as {accepted.queue_id}"))
        else:
            self.machine.answer(LATER)
        self._resume()

    # -- small print ----------------------------------------------------------------------------------------

    def _current_sender(self) -> Sender | None:
        """Return the sender as the store knows it now: configurations change during long sessions."""
        sender = self._sender
        if sender is not None:
            found = self._relay.credentials.current(sender)
            if found is None:
                self._refused("session.withdrawn", _VOID)
            self._sender = found
        return self._sender

    def _ask_tls(self) -> str:
        self._tls_text = self._tls()
        return self._tls_text

    def _forget_mail(self) -> None:
        self._mail = None
        self._recipients = []

    def _refused(self, event: str, refused: Refused, username: str = "") -> None:
        _log.info(
            event,
            session=self._id,
            client=self.client.address,
            endpoint=self.client.endpoint,
            username=self._sender.credential.username if self._sender else username,
            reply=str(refused.reply),
            reason=refused.reason,
            remedy=refused.remedy,
        )


def _log_decision(
    decision: Decision,
    client: Client,
    session: str = "",
    sender: Sender | None = None,
) -> None:
    _log.info(
        "access.decision",
        session=session,
        api="smtp",
        decision=decision.verdict,
        enforced=decision.enforced,
        rule=decision.rule_id,
        address=client.address,
        endpoint=client.endpoint,
        vpc=client.vpc,
        instance=sender.instance.id if sender else "",
        username=sender.credential.username if sender else "",
        reason=decision.reason,
    )
