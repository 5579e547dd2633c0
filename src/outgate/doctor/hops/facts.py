"""What a walk knows so far: each hop reads it, and adds what it has seen.

Standards: none.
Promises: holds values of the configuration, also secret ones; its `repr` shows none.
Not here: the hops.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from outgate.doctor.hops.contact import Trust
from outgate.doctor.hops.reaching import Contact, Patience
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.surroundings import Surroundings, Variable
from outgate.doctor.traps.look import Look
from outgate.doctor.witnesses import Outgate
from outgate.mailer.config import MailConfig
from outgate.mailer.folders import Configurations
from outgate.mailer.interpolate import Explained, Lookup
from outgate.mailer.oauth import Tokens
from outgate.mailer.osgi import Property
from outgate.mailer.sending.target import Target


@dataclass(frozen=True, slots=True)
class Asked:
    """What the walk is to look at: configurations in `where`, for `run_modes`; a mail to `send_to` ("": none).

    `sandbox_ca` is the authority of an `outgate dev` on this machine, "" if there is none."""

    where: str
    run_modes: tuple[str, ...]
    around: Surroundings
    outgate: Outgate
    trust: Trust
    sandbox_ca: str = ""
    send_to: str = ""
    patience: Patience = field(default_factory=Patience)
    follow_s: float = 60.0
    tell: Callable[[str], None] = lambda _said: None


@dataclass(slots=True)
class Facts:
    """All that is known at a point of the walk. `traps` are what the rules on files have found, `blind` the properties
    (in lower case) whose values cannot be known from here. `direct`: the tunnel cannot be reached from here, so the
    target itself was dialled."""

    asked: Asked
    configurations: Configurations | None = None
    look: Look | None = None
    traps: list[Finding] = field(default_factory=list[Finding])
    explained: Mapping[str, Explained] = field(default_factory=dict[str, Explained], repr=False)
    blind: frozenset[str] = frozenset()
    config: MailConfig | None = field(default=None, repr=False)
    target: Target | None = None
    contact: Contact | None = None
    tokens: Tokens | None = field(default=None, repr=False)
    direct: bool = False

    @property
    def nameless(self) -> bool:
        """Say whether the tunnel leads nobody knows where, so that no name can be checked."""
        return self.target is not None and self.target.through_tunnel and self.target.forward is None

    @property
    def place(self) -> str:
        """Return what says where the server is, in words."""
        through = self.target is not None and self.target.through_tunnel
        return "name and portDest of the forward" if through else "smtp.host and smtp.port"

    @property
    def lead(self) -> str:
        """Return how another port of the server is taken, in words that the port follows."""
        through = self.target is not None and self.target.through_tunnel
        return "lead the forward to the server's port" if through else "set smtp.port to the server's port"

    @property
    def around(self) -> Surroundings:
        """Return what is known of the environment."""
        return self.asked.around

    def secrets(self) -> list[str]:
        """Return the secrets that may have been told to a server."""
        # What stands for a password that is not known is no secret: it is a word.
        blind = "smtp.password" in self.blind
        found = [self.config.password] if self.config is not None and not blind else []
        for explained in self.explained.values():
            names = [each.name for each in explained.lookups if each.source == "secret" and each.found]
            found += [self.around.secrets.get(name) or "" for name in names]
        return found

    def property(self, name: str) -> Property | None:
        """Return a property of the file as it stands there."""
        return self.look.properties.get(name) if self.look else None

    def noticed(self) -> str:
        """Return what the egress noticed about the connection, to be added to a sentence; "" if nothing."""
        if self.contact is None or self.direct:
            return ""
        said = self.asked.outgate.notice(self.contact.local)
        return f" (the egress noticed: {said})" if said else ""

    def trapped(self, hop: Hop) -> list[Finding]:
        """Return what the file alone tells that concerns a hop, but for what it tells to be well."""
        return [each for each in self.traps if each.hop is hop and each.state is not State.OK]

    def seen(self, hop: Hop, state: State, text: str) -> Finding:
        """Make a finding about what is so, with nothing to change."""
        return Finding(hop, state, text)

    def broken(
        self, hop: Hop, rule: str, text: str, remedy: str, change: str = "", *, at: str = "", warning: bool = False
    ) -> Finding:
        """Make a finding about what is wrong. `at` is the property that it is about."""
        state = State.WARNING if warning else State.BROKEN
        written = self.property(at) if at else None
        if written is None or self.look is None:
            return Finding(hop, state, text, rule, remedy, change)
        place = written.value_at
        return Finding(hop, state, text, rule, remedy, change, self.look.file.where, place.line, place.column)

    def reading(self, name: str, lookup: Lookup, variable: Variable) -> str:
        """Return the line with a placeholder that reads another variable, "" if it cannot be written."""
        written = self.property(name)
        if written is None or not isinstance(written.value.value, str):
            return ""
        before = f"$[{lookup.source}:{lookup.written}"
        after = f"$[{'secret' if variable.secret else 'env'}:{variable.name}"
        said = written.value.value
        return self.line(name, said.replace(before, after, 1)) if before in said else ""

    def line(self, name: str, value: object) -> str:
        """Return the line to write in place of a property, or to add if it is not there."""
        written = self.property(name)
        if written is not None and self.look is not None:
            return self.look.line(written, value)
        return f'"{name}": {json.dumps(value)},'
