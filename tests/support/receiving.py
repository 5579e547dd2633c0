"""A real Postfix and a real Exim as receiving servers: they take mail for one domain into a mailbox of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import trustme

from support.clients import run
from support.postfix import DAEMONS, SERVICES
from support.running import wait_for

_EXIM = Path(__file__).resolve().parents[2] / "build" / "exim" / "usr" / "sbin" / "exim4"


class Receiving:
    """What both have: a directory, a certificate, a Maildir, a log."""

    name = ""
    logs: tuple[str, ...] = ()

    def __init__(self, domain: str, address: str, port: int, settings: str = "") -> None:
        """Take mail for `domain` at `address`:`port`; `settings` are added to the server's own."""
        assert os.geteuid() == 0, "mail servers can be started by root only"
        self.domain, self.address, self.port, self.settings = domain, address, port, settings
        # Its daemons give up root and must still reach it: pytest's own directories are root's alone.
        self.directory = Path(tempfile.mkdtemp(prefix=f"outgate-{self.name}-"))
        self.directory.chmod(0o755)
        self.maildir = self.directory / "mail"
        certificate = trustme.CA().issue_cert(f"mx.{domain}")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.directory / "tls.pem"))

    def mails(self) -> list[bytes]:
        """Return what has been taken, as it lies in the mailbox (lines end in LF), oldest first."""
        return [
            path.read_bytes() for path in sorted(self.maildir.glob("new/*"), key=lambda path: path.stat().st_mtime_ns)
        ]

    def log(self) -> str:
        """Return what its log says."""
        return "".join(
            path.read_text(errors="replace") for name in self.logs if (path := self.directory / name).exists()
        )

    def answers(self) -> bool:
        """Say whether it greets whoever connects."""
        try:
            with socket.create_connection((self.address, self.port), timeout=5) as sock:
                return sock.recv(3) == b"220"
        except OSError:
            return False


class ReceivingPostfix(Receiving):
    """Postfix as an MX: only `ann` and `bob` have a mailbox."""

    name = "postfix"
    logs = ("maillog",)

    def start(self) -> ReceivingPostfix:
        here = self.directory
        for name in ("etc", "queue", "data", "mail"):
            (here / name).mkdir(mode=0o755)
        shutil.chown(here / "data", "postfix")
        shutil.chown(here / "mail", "mail", "mail")
        (here / "etc" / "main.cf").write_text(self._settings())
        service = SERVICES.format(port=f"{self.address}:{self.port}") + "virtual unix - n n - - virtual\n"
        (here / "etc" / "master.cf").write_text(service)
        started = self._command("start")
        assert started.returncode == 0, started.stderr + started.stdout + self.log()
        wait_for(self.answers, bool)
        return self

    def _settings(self) -> str:
        here = self.directory
        mailboxes = ", ".join(f"{{ {name}@{self.domain} = mail/ }}" for name in ("ann", "bob"))
        return f"""\
compatibility_level = 3.6
queue_directory = {here}/queue
data_directory = {here}/data
daemon_directory = {next(found for found in DAEMONS if Path(found, "master").exists())}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {here}/maillog
maillog_file_prefixes = {here.parent}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
alias_database =
mydestination =
myhostname = mx.{self.domain}
virtual_mailbox_domains = {self.domain}
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_mailbox_base = {here}
virtual_uid_maps = static:8
virtual_gid_maps = static:8
virtual_minimum_uid = 1
smtpd_tls_chain_files = {here}/tls.pem
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_recipient_restrictions = reject_unauth_destination
smtputf8_enable = yes
recipient_delimiter = +
{self.settings}
"""

    def stop(self) -> None:
        """End the master by its number and wait for it; what it wrote goes."""
        pid = self.directory / "queue" / "pid" / "master.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), 15)
            wait_for(lambda: self._command("status").returncode, bool)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self, verb: str) -> subprocess.CompletedProcess[str]:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return run(["postfix", verb], "", env=dict(os.environ, MAIL_CONFIG=str(self.directory / "etc"), PATH=path))


class ReceivingExim(Receiving):
    """Exim as an MX: only `ann` and `bob` have a mailbox; `settings` are ACL conditions for RCPT, tried first."""

    name = "exim"
    logs = ("log/mainlog", "log/rejectlog", "log/paniclog")
    main = ""
    """More main settings."""

    def start(self) -> ReceivingExim:
        here = self.directory
        for name in ("spool", "log", "mail"):
            (here / name).mkdir(mode=0o755)
            shutil.chown(here / name, "mail", "mail")
        shutil.chown(here / "tls.pem", "mail", "mail")
        settings = here / "exim.conf"
        settings.write_text(self._settings())
        # In the foreground, so that it is our child and ends by our hand.
        self._process = subprocess.Popen(
            [str(_EXIM), "-C", str(settings), "-bdf", "-q1m"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for(self.answers, bool)
        return self

    def _settings(self) -> str:
        here = self.directory
        return f"""\
exim_user = mail
exim_group = mail
exim_path = {_EXIM}
spool_directory = {here}/spool
log_file_path = {here}/log/%slog
pid_file_path = {here}/exim.pid
primary_hostname = mx.{self.domain}
local_interfaces = {self.address}
daemon_smtp_ports = {self.port}
domainlist ours = {self.domain}
tls_advertise_hosts = *
tls_certificate = {here}/tls.pem
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
host_lookup =
dns_ipv4_lookup =
rfc1413_hosts =
acl_smtp_rcpt = rcpt
never_users =
keep_environment =
add_environment =
log_selector = +tls_cipher +tls_sni +received_recipients
{self.main}

begin acl
rcpt:
{self.settings}
  accept domains = +ours
         local_parts = ann : bob : ^ann\\+
  deny message = no such mailbox here

begin routers
here:
  driver = accept
  domains = +ours
  transport = maildir

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {here}/mail
  user = mail
  group = mail

begin retry
* * F,1h,1m

begin authenticators
"""

    def stop(self) -> None:
        """End it by its number and wait for it; what it wrote goes."""
        self._process.terminate()
        self._process.wait(timeout=30)
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)
