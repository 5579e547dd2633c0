"""Parameters of DSN in MAIL and RCPT, as they come in and as they go on to the next server.

Property: any octets are a question or `BadArgument`. What was taken goes on unchanged, in one line that our own reader
takes for the same: no parameter of ours begins or ends within it, and its text fits into a report as printable signs.

Input: one octet (0: MAIL, else RCPT; its second bit: SMTPUTF8), then the argument.
"""

from __future__ import annotations

from outgate.smtp.client import ClientMachine
from outgate.smtp.envelope import BadArgument, decode_utf8_address, decode_xtext, mail_from, rcpt_to
from outgate.smtp.transaction import Transaction

SEEDS = (
    b"\0FROM:<a@x.test> RET=HDRS ENVID=QQ314159",
    b"\0FROM:<> RET=full ENVID=a+2Bb+3Dc+20d REQUIRETLS",
    b"\2FROM:<a@x.test> SMTPUTF8 SIZE=10 BODY=8BITMIME",
    b"\1TO:<b@y.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@y.test",
    b"\1TO:<b@y.test> NOTIFY=NEVER",
    b"\3TO:<b@y.test> ORCPT=utf-8;\xc3\xa9\\x{2B}@y.test",
    b"\1TO:<b@y.test> ORCPT=rfc822;a+0D+0ADATA",
    b"\1TO:<b@y.test> ORCPT=x-400;/c=us/ NOTIFY=FAILURE,FAILURE",
)


def one_input(data: bytes) -> None:
    recipient, smtputf8, argument = bool(data[:1].strip(b"\0\2")), bool(data[:1] and data[0] & 2), data[1:]
    try:
        if recipient:
            asked = rcpt_to(argument, smtputf8=smtputf8)
            _goes_on("a@x.test", asked.forward_path.text, smtputf8, notify=(asked.notify,), orcpt=(asked.orcpt,))
            kind, _, address = asked.orcpt.partition(";")
            if address:
                shown = (
                    decode_utf8_address(address)
                    if kind.upper() == "UTF-8"
                    else decode_xtext(address, 500, utf8=smtputf8)
                )
                assert shown.isprintable()
        else:
            question = mail_from(argument)
            if question.envid:
                assert decode_xtext(question.envid, 100).isprintable()
            _goes_on(question.reverse_path.text, "b@y.test", question.smtputf8, ret=question.ret, envid=question.envid)
    except BadArgument as error:
        assert error.reply.code in (501, 550, 553, 555) and "\r" not in str(error)


def _goes_on(reverse_path: str, mailbox: str, smtputf8: bool, **options: object) -> None:
    """Have the client machine say it to a server that offers all, and read what it says."""
    machine = ClientMachine(ehlo_name="me.test")
    machine.receive(b"220 hi\r\n")
    machine.next_event()
    machine.ehlo()
    machine.receive(b"250-peer\r\n250-PIPELINING\r\n250-DSN\r\n250 SMTPUTF8\r\n")
    machine.next_event()
    machine.outgoing()
    machine.send(Transaction(reverse_path, (mailbox,), (b"x\r\n",), smtputf8=smtputf8, **options))  # type: ignore[arg-type]
    lines = b"".join(machine.outgoing()).split(b"\r\n")
    assert len(lines) == 4 and lines[2:] == [b"DATA", b""]
    said = mail_from(lines[0].removeprefix(b"MAIL "))
    assert (said.reverse_path.text, said.ret, said.envid) == (
        reverse_path,
        options.get("ret", ""),
        options.get("envid", ""),
    )
    told = rcpt_to(lines[1].removeprefix(b"RCPT "), smtputf8=said.smtputf8)
    assert ((told.notify,), (told.orcpt,)) == (options.get("notify", ("",)), options.get("orcpt", ("",)))
    assert told.forward_path.text == mailbox


if __name__ == "__main__":
    from _run import run

    run(__file__)
