"""A real Postfix as a smart host: STARTTLS, then AUTH, and nobody without; it can be ended and started again."""

from __future__ import annotations

import base64
import os
import socketserver
import threading

import trustme

from support.egress_peers import tunnel_address
from support.ports import reserved_port
from support.receiving import ReceivingPostfix
from support.running import wait_for

USER, PASSWORD = "shop@smart.test", "made for this test"


class _Logins(socketserver.StreamRequestHandler):
    """Dovecot's authentication protocol, as far as Postfix speaks it: Postfix asks, this knows one login."""

    def handle(self) -> None:
        cookie = os.urandom(16).hex()
        lines = ("VERSION\t1\t1", "MECH\tPLAIN\tplaintext", "SPID\t1", "CUID\t1", f"COOKIE\t{cookie}", "DONE")
        self.wfile.write("".join(f"{line}\n" for line in lines).encode())
        for line in self.rfile:
            words = line.decode().rstrip("\n").split("\t")
            if words[0] != "AUTH":
                continue
            given = next(word for word in words if word.startswith("resp=")).removeprefix("resp=")
            _, user, password = base64.b64decode(given).decode().split("\0")
            good = (user, password) == (USER, PASSWORD)
            self.wfile.write(f"{'OK' if good else 'FAIL'}\t{words[1]}\tuser={user}\n".encode())


class SmartHost(ReceivingPostfix):
    """What it takes for `ann` and `bob` of `domain` lies in its mailbox."""

    def __init__(self, domain: str, *names: str) -> None:
        """`names` are in its certificate, which `pem` vouches for."""
        self._logins = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Logins)
        self._logins.daemon_threads = True
        self._thread = threading.Thread(target=self._logins.serve_forever, name="logins")
        self._thread.start()
        # Also while it is halted, nobody else must be given its port.
        address = tunnel_address()
        port = reserved_port(address)
        settings = f"""\
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{self._logins.server_address[1]}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
"""
        super().__init__(domain, address, port, settings)
        authority = trustme.CA()
        authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(self.directory / "tls.pem"))
        self.pem = authority.cert_pem.bytes().decode()

    def halt(self) -> None:
        """End it as an accident would; what it has taken stays."""
        os.kill(int((self.directory / "queue" / "pid" / "master.pid").read_text()), 15)
        wait_for(lambda: self._command("status").returncode, bool)
        wait_for(self.answers, lambda answers: not answers)

    def again(self) -> None:
        """Start it again."""
        assert self._command("start").returncode == 0, self.log()
        wait_for(self.answers, bool)

    def stop(self) -> None:
        super().stop()
        self._logins.shutdown()
        self._logins.server_close()
        self._thread.join()
