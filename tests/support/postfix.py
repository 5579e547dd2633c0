"""A Postfix of the tests' own, with Outgate as its relayhost; an installed one is neither read, changed nor stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from support.clients import run
from support.documented import snippet
from support.ports import reserved_port
from support.running import Running, wait_for

DAEMONS = ("/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix")
SERVICES = """\
{port}    inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
smtps     unix  - - n - - smtp -o smtp_tls_wrappermode=yes
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance: `etc`, `queue`, `data` and `maillog` in a directory of its own, listening on loopback."""

    def __init__(self, running: Running) -> None:
        assert os.geteuid() == 0, "Postfix can be started by root only"
        assert shutil.which("postfix", path=_path()), "postfix is missing: run `make packages` as root"
        # Its daemons give up root and must still reach it: pytest's own directories are root's alone.
        self.directory = Path(tempfile.mkdtemp(prefix="outgate-postfix-"))
        self.log = self.directory / "maillog"
        self._etc = self.directory / "etc"
        self._running = running
        self.port = reserved_port()

    def start(self) -> Postfix:
        self.directory.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self.directory / name).mkdir(mode=0o755)
        shutil.chown(self.directory / "data", "postfix")
        shutil.copy(self._running.dev["ca_file"], self._etc / "ca.pem")
        (self._etc / "main.cf").write_text(self._settings())
        (self._etc / "master.cf").write_text(SERVICES.format(port=self.port))
        host, port = self._running.address("submissions")
        (self._etc / "transport").write_text(f"implicit.test smtps:[{host}]:{port}\n")
        self._write_login(self._running.dev["smtp_user"], self._running.dev["smtp_password"])
        started = self.command("postfix", "start")
        assert started.returncode == 0, started.stderr + started.stdout + self.maillog()
        wait_for(self.maillog, lambda log: "daemon started" in log)
        return self

    def log_in_anew(self, user: str, password: str) -> None:
        """Have a running Postfix use this user and password from now on."""
        self._write_login(user, password)
        before = self.maillog().count("reload -- ")
        assert self.command("postfix", "reload").returncode == 0
        wait_for(self.maillog, lambda log: log.count("reload -- ") > before)

    def _write_login(self, user: str, password: str) -> None:
        secret = self._etc / "sasl_passwd"
        secret.touch(mode=0o600)
        addresses = [self._running.address(listener) for listener in ("submission", "submissions")]
        secret.write_text("".join(f"[{host}]:{port} {user}:{password}\n" for host, port in addresses))

    def _settings(self) -> str:
        dev = self._running.dev
        here = self.directory
        documented = snippet(self._running, "Postfix").replace("/etc/postfix", str(self._etc))
        documented = documented.replace(dev["ca_file"], str(self._etc / "ca.pem"))
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
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
mydestination =
local_transport = error:no local mail here
message_size_limit = 31457280

myhostname = mail.{dev["domain"]}

# As the page says, by address: there is no name server here that Postfix could ask.
{documented}
smtp_tls_secure_cert_match = {dev["smtp_host_name"]}
transport_maps = texthash:{here}/etc/transport
"""

    def stop(self) -> None:
        """End the master by its number and wait for it; what it wrote goes."""
        pid = self.directory / "queue" / "pid" / "master.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), 15)
            wait_for(lambda: self.command("postfix", "status").returncode, bool)
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, name: str, *arguments: str, stdin: str | bytes = "") -> Any:
        """Run one of Postfix's commands on this instance."""
        environment = dict(os.environ, MAIL_CONFIG=str(self._etc), PATH=_path())
        return run([name, *arguments], stdin, env=environment)

    def sendmail(self, content: str | bytes, sender: str, *recipients: str) -> None:
        """Hand in a mail by sendmail(1): lines end as on this system."""
        handed = self.command("sendmail", "-oi", "-f", sender, *recipients, stdin=content)
        assert handed.returncode == 0, handed.stderr

    def queue(self) -> list[dict[str, Any]]:
        """Return what is in the queue, as `postqueue -j` tells it."""
        told = self.command("postqueue", "-j")
        assert told.returncode == 0, told.stderr
        return [json.loads(line) for line in told.stdout.splitlines()]

    def deferred(self, sender: str) -> str:
        """Wait until a mail of `sender` was put off; return why."""
        found = wait_for(
            lambda: [each for each in self.queue() if each["sender"] == sender and each["queue_name"] == "deferred"],
            lambda mails: mails and all("delay_reason" in one for one in mails[0]["recipients"]),
        )
        return found[0]["recipients"][0]["delay_reason"]

    def flush(self) -> None:
        """Have everything tried now, and wait until the queue is empty."""
        assert self.command("postqueue", "-f").returncode == 0
        wait_for(self.queue, lambda left: not left)

    def maillog(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def lines(self, recipient: str) -> list[str]:
        """Return what the log says about deliveries to a recipient."""
        return re.findall(rf"to=<{re.escape(recipient)}>,.*", self.maillog())


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
