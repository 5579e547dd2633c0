"""The table of traps: what each is called, how bad it is, why it is one, what to do.

Standards: none; the reasons are the vendor's pages and the behaviour of Apache Felix and Sling.
Promises: pure; an id is stable: builds silence, count and link to it.
It is longer than other modules because it is one table.
Not here: how a trap is seen (`doctor.traps.placeholders`, `doctor.traps.mail`, `doctor.traps.tree`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from outgate.doctor.report import Finding, Hop, State


class Level(StrEnum):
    """How bad it is. ERROR: mail does not work, or a secret lies open. WARNING: very likely not what is meant. NOTE:
    worth knowing; a build does not fail for it."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


STATES = {Level.ERROR: State.BROKEN, Level.WARNING: State.WARNING, Level.NOTE: State.OK}
_LEVELS = {State.BROKEN: Level.ERROR, State.WARNING: Level.WARNING}


@dataclass(frozen=True, slots=True)
class Rule:
    """One trap: `why` it is one, and the `remedy`, each a sentence that holds for every case of it."""

    id: str
    level: Level
    hop: Hop
    title: str
    why: str
    remedy: str


_E, _W, _N = Level.ERROR, Level.WARNING, Level.NOTE
_F, _P, _V, _T = Hop.FILE, Hop.PLACEHOLDERS, Hop.VARIABLES, Hop.TLS

_TABLE = (
    # -- the file -----------------------------------------------------------------------------------------------
    Rule(
        "unreadable",
        _E,
        _F,
        "The file is no configuration",
        "A file that cannot be read is left out as a whole: the service runs without it, and says so in its log only.",
        "Correct the place that is shown.",
    ),
    Rule(
        "more-findings",
        _N,
        _F,
        "There is more to find in this file",
        "Only the first findings of a file are told.",
        "Mend those, and look again.",
    ),
    Rule(
        "not-json",
        _E,
        _F,
        "A name without quotes, or a comma that is missing",
        "The vendor's own samples of the OAuth page are no JSON: names stand without quotes, commas are missing.",
        "Put names in double quotes, and one comma between two properties.",
    ),
    Rule(
        "typed-placeholder",
        _E,
        _F,
        "A typed key holds a placeholder",
        "The type of a key applies while the file is read, before placeholders are replaced: the file is rejected.",
        "Take the type from the key and write it into the placeholder, as its type directive.",
    ),
    Rule(
        "null-value",
        _E,
        _F,
        "A value is null",
        "The reader rejects the whole file for one null.",
        "Leave the property out.",
    ),
    Rule(
        "duplicate-property",
        _E,
        _F,
        "A property stands twice",
        "Names are not case-sensitive and types do not tell them apart: the reader rejects the whole file.",
        "Keep one of the two.",
    ),
    Rule(
        "changed-value",
        _W,
        _F,
        "A value that is not read as it is written",
        "The reader converts a value to its type without a word: digits beyond the type's range, a fraction, or all"
        " elements but the first are lost, and a mixed list becomes one text.",
        "Write a value that its type can hold, or another type.",
    ),
    Rule(
        "wrong-pid",
        _E,
        _F,
        "A file is named after no service that there is",
        "Configuration reaches a service by its exact PID. Old pages name the mail service wrongly, and a name behind ~"
        " makes an instance of a factory, which these services are not.",
        "Rename the file.",
    ),
    Rule(
        "other-format",
        _W,
        _F,
        "The configuration lies in another format",
        "Beside a .cfg.json of the same PID it is not told which of the two counts; and what is in the other one is"
        " checked by nobody here.",
        "Keep the .cfg.json only.",
    ),
    Rule(
        "file-name",
        _W,
        _F,
        "A file that is not read for its name",
        "The name of a configuration file is the PID of its service and .cfg.json.",
        "Rename the file.",
    ),
    Rule(
        "folder-none",
        _W,
        _F,
        "A file in no configuration folder",
        "Configuration is read from /apps/<project>/osgiconfig/config and its siblings with run modes only.",
        "Move it to osgiconfig/config, or to config with run modes, as config.author.",
    ),
    Rule(
        "folder-order",
        _E,
        _F,
        "The run modes of a folder stand in the wrong order",
        "Folders are config.<author|publish>.<dev|rde|stage|prod>, in that order and in lower case:"
        " others are not read.",
        "Rename the folder.",
    ),
    Rule(
        "folder-unsupported",
        _W,
        _F,
        "A folder of a run mode that the cloud service does not have",
        "Only author, publish, dev, rde, stage and prod are ever active there: the files of this folder are not read."
        " Preview takes what publish has.",
        "Move the file to a folder of a run mode that there is, or keep it for local use knowingly.",
    ),
    Rule(
        "folders-tie",
        _E,
        _F,
        "Two folders match equally well",
        "The folder with the most active run modes counts; which of two with as many does is not defined.",
        "Put what is meant into a folder that names both run modes, as config.author.dev, or keep one of the two.",
    ),
    Rule(
        "environment-without-file",
        _W,
        _F,
        "A type of environment has no mail configuration",
        "No file matches its run modes: the mail service has no server there, and there is no message gateway.",
        "Add a file for it, or one in a folder that holds for all.",
    ),
    # -- placeholders -------------------------------------------------------------------------------------------
    Rule(
        "misspelt-placeholder",
        _E,
        _P,
        "A placeholder that is none",
        "Only $[source:name] is replaced, with the sources env and secret: anything else is used as it is written.",
        "Write it as $[env:NAME] or $[secret:NAME].",
    ),
    Rule(
        "placeholder-name",
        _E,
        _P,
        "A name that no variable can have",
        "Variables have 2 to 100 letters, digits and underscores, not beginning with a digit; nothing is trimmed.",
        "Correct the name.",
    ),
    Rule(
        "placeholder-escaped",
        _W,
        _P,
        "A placeholder behind a backslash",
        "A backslash before $[ keeps the placeholder from being replaced: the service gets its text.",
        "Take the backslash away.",
    ),
    Rule(
        "placeholder-in-name",
        _E,
        _P,
        "A placeholder in a property's name",
        "Placeholders are replaced in values, never in names; what stands behind the colon is taken for a type, and the"
        " file is rejected.",
        "Write the name itself.",
    ),
    Rule(
        "placeholder-in-collection",
        _E,
        _P,
        "A placeholder in a collection",
        "Only texts and arrays of texts are searched for placeholders; those of a collection stay as they are.",
        "Write [] behind the type of the elements instead, as String[].",
    ),
    Rule(
        "unknown-directive",
        _W,
        _P,
        "A directive that does not exist",
        "There are default, type and delimiter, in lower case; others are ignored without a word.",
        "Correct the directive.",
    ),
    Rule(
        "unescaped-semicolon",
        _W,
        _P,
        "A semicolon ends the value of a directive",
        "What stands behind it is read as another directive, and ignored.",
        "Write a backslash before the semicolon (in JSON two).",
    ),
    Rule(
        "unknown-type",
        _W,
        _P,
        "A type that does not exist",
        "A placeholder with an unknown type gives text.",
        "Use String, Integer, Long, Float, Double, Byte, Short, Character or Boolean, each also with [].",
    ),
    Rule(
        "default-does-not-convert",
        _E,
        _P,
        "The default is not of the type",
        "A value that does not convert keeps the whole configuration from the service.",
        "Correct the default or the type.",
    ),
    Rule(
        "array-directives",
        _W,
        _P,
        "A delimiter without an array, or an array without a delimiter",
        "A delimiter has an effect with an array type only; an array without a delimiter has one element.",
        "Write both, as type=String[];delimiter=, or none.",
    ),
    Rule(
        "conf-missing",
        _E,
        _P,
        "A property is referred to that is not in the file",
        "A $[conf:…] that leads nowhere keeps the whole configuration from the service.",
        "Add the property, or correct the name.",
    ),
    Rule(
        "prop-source",
        _N,
        _P,
        "A system property is read",
        "The vendor documents the sources env and secret only: system properties of the cloud service are not yours.",
        "Use a variable of the environment.",
    ),
    Rule(
        "reserved-variable",
        _E,
        _P,
        "A variable with a reserved prefix",
        "INTERNAL_, ADOBE_ and CONST_ are the vendor's: variables of yours with these prefixes are ignored.",
        "Give the variable another name.",
    ),
    Rule(
        "vendor-variable",
        _N,
        _P,
        "A variable that begins with AEM_",
        "AEM_ is for names that the product defines: use those it documents, and invent none.",
        "Give variables of your own another prefix.",
    ),
    Rule(
        "secret-from-env",
        _E,
        _P,
        "A secret is read from env",
        "env sees plain variables only. Stored as a secret the value is not found; stored as a plain variable anybody"
        " with access to the environment can read it, and the dispatcher gets it too.",
        "Store it as a secret, and read it with $[secret:…].",
    ),
    Rule(
        "documented-as-secret",
        _N,
        _P,
        "The vendor's page stores this variable as a secret",
        "The page reads EMAIL_USERNAME from env, but its command stores it with --secret: env does not see it, and the"
        " default is used.",
        "Set it with --variable, or read it with $[secret:…].",
    ),
    Rule(
        "secret-default",
        _E,
        _P,
        "A secret has a default in the file",
        "The default is a secret in clear, for everybody who can read the code.",
        "Take the default away.",
    ),
    # -- variables, if they are known ---------------------------------------------------------------------------
    Rule(
        "env-reads-secret",
        _E,
        _V,
        "The variable is stored as a secret, but read from env",
        "env does not see secrets: the default is used, or the placeholder stays as it is.",
        "Read it with $[secret:…], or delete it and set it with --variable.",
    ),
    Rule(
        "secret-reads-variable",
        _E,
        _V,
        "The variable is stored in clear, but read as a secret",
        "secret does not see plain variables: the default is used, or the placeholder stays as it is.",
        "Read it with $[env:…], or, if it is a secret, delete it and set it with --secret: its type cannot be changed.",
    ),
    Rule(
        "variable-missing",
        _E,
        _V,
        "Nothing is set for a placeholder",
        "Without a value and a default a placeholder stays as it is: the service gets its text.",
        "Set the variable, or give the placeholder a default.",
    ),
    Rule(
        "tunnel-variable-set",
        _E,
        _V,
        "AEM_PROXY_HOST is set by hand",
        "The variable is the product's own: a value of yours hides the way to the tunnel.",
        "Delete the variable.",
    ),
    # -- the mail service ---------------------------------------------------------------------------------------
    Rule(
        "host-missing",
        _E,
        _F,
        "No server",
        "Without smtp.host the mail service is not usable, and there is no message gateway.",
        "Name the tunnel.",
    ),
    Rule(
        "host-not-tunnel",
        _E,
        _F,
        "The server is named itself, where only the tunnel gets out",
        "Mail leaves the cloud service through the port forwards of the tunnel only. The server's name belongs into the"
        " forward.",
        "Name the tunnel, and the port that leads to the server.",
    ),
    Rule(
        "host-default",
        _W,
        _F,
        "The default of the host is not proxy.tunnel",
        "Where the variable is not set the default counts, and only the tunnel gets out.",
        "Write default=proxy.tunnel; what a developer's machine needs belongs into its environment.",
    ),
    Rule(
        "host-no-default",
        _N,
        _F,
        "AEM_PROXY_HOST without a default",
        "The variable is not set on a developer's machine: the placeholder stays as it is there.",
        "Write default=proxy.tunnel.",
    ),
    Rule(
        "host-variable",
        _W,
        _F,
        "The host is read from another variable than AEM_PROXY_HOST",
        "The product sets AEM_PROXY_HOST to the tunnel in every environment; another variable must be set in each.",
        "Read AEM_PROXY_HOST.",
    ),
    Rule(
        "port-missing",
        _E,
        Hop.FORWARD,
        "No port",
        "Without smtp.port it is 25, which is no port of the tunnel.",
        "Write the portOrig of the forward that leads to the server.",
    ),
    Rule(
        "port-not-number",
        _E,
        _F,
        "The port is no number",
        "A port is a number from 25 to 65535, as a number or as text without spaces.",
        "Write the portOrig of the forward that leads to the server.",
    ),
    Rule(
        "port-real",
        _E,
        Hop.FORWARD,
        "The port is the server's, not the tunnel's",
        "smtp.port is a port of the tunnel (portOrig, 30000 to 31000); the server's own port is the portDest of the"
        " forward.",
        "Write the portOrig of the forward that leads to the server.",
    ),
    Rule(
        "port-range",
        _E,
        Hop.FORWARD,
        "The port cannot be one of the tunnel",
        "Ports of the tunnel (portOrig) are 30000 to 31000.",
        "Write the portOrig of the forward that leads to the server.",
    ),
    Rule(
        "port-no-forward",
        _E,
        Hop.FORWARD,
        "No forward has this port",
        "A port of the tunnel without a forward leads nowhere. A PUT replaces all forwards: one that is"
        " forgotten is gone.",
        "Use the port of a forward that there is, or add the forward.",
    ),
    Rule(
        "forward-not-mail",
        _E,
        Hop.FORWARD,
        "The forward leads to a web server's port",
        "Ports 80 and 443 speak HTTP, not SMTP.",
        "Use the port of a forward that leads to the mail server.",
    ),
    Rule(
        "tls-mismatch",
        _E,
        _T,
        "TLS does not begin the way the server's port wants it",
        "Port 465 wants TLS from the first octet (smtp.ssl true); 587, 25 and 2525 begin in clear and change to TLS by"
        " STARTTLS (smtp.ssl false). With the wrong one both sides wait, or fail in the handshake.",
        "Set smtp.ssl as the server's port wants it.",
    ),
    Rule(
        "tls-echo",
        _W,
        _T,
        "TLS does not begin the way the port suggests",
        "The last digits of a port of the tunnel usually echo the server's port: 30465 leads to 465, which wants"
        " smtp.ssl true; 30587 to 587, which wants false.",
        "Set smtp.ssl as the server's port wants it.",
    ),
    Rule(
        "ssl-and-starttls",
        _W,
        _T,
        "Both smtp.ssl and smtp.starttls",
        "With smtp.ssl the connection is TLS from the first octet: smtp.starttls has no effect.",
        "Set smtp.starttls to false.",
    ),
    Rule(
        "starttls-optional",
        _N,
        _T,
        "A login may pass in the clear",
        "Without smtp.requiretls a server that offers no STARTTLS, or somebody on the way who hides it, gets the login"
        " in clear text.",
        "Set smtp.requiretls to true.",
    ),
    Rule(
        "flag-not-boolean",
        _E,
        _F,
        "Neither true nor false",
        "Any text but true is false.",
        "Write true or false.",
    ),
    Rule(
        "password-in-clear",
        _E,
        _F,
        "A secret stands in the file",
        "Everybody who can read the code, the package or the repository's history has it.",
        "Store it as a secret of the environment, read it with $[secret:…], and change it: it is known now.",
    ),
    Rule(
        "password-missing",
        _E,
        Hop.AUTH,
        "A user without a password",
        "With a user the mail service logs in, and it has nothing to log in with.",
        "Add smtp.password, read with $[secret:…].",
    ),
    Rule(
        "user-missing",
        _W,
        Hop.AUTH,
        "A password without a user",
        "Without a user the mail service does not log in.",
        "Add smtp.user, or leave the password out.",
    ),
    Rule(
        "login-invalid",
        _E,
        Hop.AUTH,
        "The login is not one text",
        "smtp.user is one line of text, and smtp.password one text: the mailer takes no others.",
        "Write one text.",
    ),
    Rule(
        "from-missing",
        _W,
        Hop.SENDER,
        "No sender",
        "A message that brings no sender of its own fails with: From address required.",
        "Add from.address, with an address of a domain that the server may send for.",
    ),
    Rule(
        "from-invalid",
        _E,
        Hop.SENDER,
        "The sender is no address",
        "from.address is local-part@domain, one address.",
        "Write the address.",
    ),
    Rule(
        "from-display-name",
        _W,
        Hop.SENDER,
        "The sender has a display name",
        "from.address is documented as an address alone; what becomes of a name beside it is not.",
        "Write the address alone.",
    ),
    Rule(
        "stray-space",
        _W,
        _F,
        "A space at the beginning or the end",
        "Nothing is trimmed: the space is part of the value.",
        "Take the space away.",
    ),
    Rule(
        "sample-left",
        _E,
        _F,
        "A blank of the vendor's sample was not filled in",
        "The value is still the sample's.",
        "Write the value that is meant.",
    ),
    Rule(
        "debug-in-production",
        _W,
        _F,
        "The SMTP dialogue is logged in production",
        "debug.email writes every conversation into the log; it may show credentials, and it shows who gets mail.",
        "Set it to false, and true in the folder of an environment for tests only.",
    ),
    Rule(
        "unknown-property",
        _W,
        _F,
        "A property that the service does not have",
        "The mail service has ten properties, its OAuth provider eight; names are written exactly so, and others are"
        " ignored without a word. Guides on the web invent some.",
        "Correct the name, or leave the property out.",
    ),
    # -- OAuth --------------------------------------------------------------------------------------------------
    Rule(
        "oauth-tls",
        _W,
        _T,
        "OAuth with TLS that is not required",
        "The vendor's settings for OAuth are smtp.ssl false, smtp.starttls true, smtp.requiretls true: Microsoft and"
        " Google take tokens on 587, and a token must not pass in the clear.",
        "Set the three properties so.",
    ),
    Rule(
        "oauth-password",
        _N,
        Hop.AUTH,
        "A password that OAuth does not use",
        "With oauth.flow the mail service logs in with a token.",
        "Leave smtp.password out.",
    ),
    Rule(
        "oauth-user",
        _E,
        Hop.AUTH,
        "OAuth without a user",
        "The token is for a mailbox: XOAUTH2 sends its name too.",
        "Add smtp.user, the address of the mailbox.",
    ),
    Rule(
        "oauth-no-provider",
        _E,
        Hop.AUTH,
        "OAuth without a provider",
        "oauth.flow needs a second file, that of the OAuth provider, for the same run modes.",
        "Add com.day.cq.mailer.oauth.impl.OAuthConfigurationProviderImpl.cfg.json.",
    ),
    Rule(
        "oauth-unused",
        _N,
        Hop.AUTH,
        "A provider that is not used",
        "The OAuth provider's file counts only when the mail service has oauth.flow true.",
        "Set oauth.flow to true, or delete the file.",
    ),
    Rule(
        "oauth-incomplete",
        _E,
        Hop.AUTH,
        "The OAuth provider lacks something",
        "On the cloud service a new token is asked for at tokenUrl (https), with clientId, clientSecret and a"
        " refreshToken that was obtained by hand.",
        "Add the property.",
    ),
)

RULES = {rule.id: rule for rule in _TABLE}


def level(finding: Finding) -> Level:
    """Return how bad a finding is."""
    return _LEVELS.get(finding.state, Level.NOTE)
