"""A Dovecot submission service of the tests' own that knows XOAUTH2 only; an installed one is neither read nor started."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import trustme

from support.ports import reserved_port
from support.running import wait_for
from support.token_server import TokenServer

_SETTINGS = """\
protocols = submission
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
hostname = {name}
instance_name = outgate-test
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
mail_location = maildir:{directory}/mail/%u
ssl = required
ssl_cert = <{directory}/cert.pem
ssl_key = <{directory}/key.pem
auth_mechanisms = xoauth2
auth_failure_delay = 0
auth_cache_size = 0
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_max_idle_time = 5s
service submission-login {{
  chroot =
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
first_valid_uid = 1
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {directory}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/mail/%u allow_all_users=yes
}}
"""
_INTROSPECTION = """\
introspection_mode = post
introspection_url = {scheme}://localhost:{port}/introspect
tls_ca_cert_file = {directory}/ca.pem
username_attribute = username
active_attribute = active
active_value = true
"""


class Dovecot:
    """One instance: STARTTLS on a port of its own, tokens checked with a `TokenServer`, mail handed on to a port of this
    host. A context manager."""

    def __init__(self, tokens: TokenServer, relay_port: int, authority: trustme.CA, *names: str) -> None:
        binary = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert binary, "Dovecot is missing: run `make packages` as root"
        assert Path("/usr/lib/dovecot/submission").exists(), (
            "dovecot-submissiond is missing: run `make packages` as root"
        )
        self._binary = binary
        # Its processes give up root and must still reach it: pytest's own directories are root's alone.
        self.directory = Path(tempfile.mkdtemp(prefix="outgate-dovecot-"))
        self.directory.chmod(0o755)
        self.port = reserved_port()
        self._configure(tokens, relay_port, authority, names)

    def _configure(self, tokens: TokenServer, relay_port: int, authority: trustme.CA, names: tuple[str, ...]) -> None:
        certificate = authority.issue_cert(*names)
        certificate.private_key_pem.write_to_path(self.directory / "key.pem")
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(self.directory / "cert.pem", append=number > 0)
        root = os.geteuid() == 0
        mail = self.directory / "mail"
        mail.mkdir(mode=0o700)
        if root:
            shutil.chown(mail, "dovecot", "dovecot")
        settings = _SETTINGS.format(
            directory=self.directory,
            name=names[0],
            internal="dovecot" if root else getpass.getuser(),
            group="dovecot" if root else os.getgid(),
            login="dovenull" if root else getpass.getuser(),
            relay=relay_port,
            port=self.port,
            uid=mail.stat().st_uid,
            gid=mail.stat().st_gid,
        )
        self._settings = self.directory / "dovecot.conf"
        self._settings.write_text(settings)
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        scheme = "https" if tokens.authority else "http"
        introspection = _INTROSPECTION.format(scheme=scheme, port=tokens.port, directory=self.directory)
        (self.directory / "oauth2.conf").write_text(introspection)

    def __enter__(self) -> Dovecot:
        self._process = subprocess.Popen(
            [self._binary, "-F", "-c", str(self._settings)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for(self._greets, bool)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, said + self.log()
        shutil.rmtree(self.directory)

    def _greets(self) -> bool:
        assert self._process.poll() is None, self._process.communicate()[0] + self.log()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                return probe.recv(100).startswith(b"220 ")
        except OSError:
            return False

    def log(self) -> str:
        """Return what it has logged."""
        file = self.directory / "log"
        return file.read_text() if file.exists() else ""
