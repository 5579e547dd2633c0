"""DKIM key records and DMARC records, as strangers publish them.

Property: any record gets one of the known results and words for it; "ok" only for the very key that we sign with; a DMARC
record's policy is one of the three or none at all.
"""

from __future__ import annotations

import base64
import binascii

from outgate.domains.ask import Answer, Question
from outgate.domains.dkim_key import KeyResult, check_key
from outgate.domains.dmarc import is_dmarc, parse_dmarc

# The public half of a key of 1024 bits that was thrown away, as SubjectPublicKeyInfo; the RSAPublicKey is its end.
PUBLIC = (
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCVr9/H35aMFWDAqRgfsCPCY3Us0LQ120qFcVP9KuC6jLbTyuY4TX8DK6rb9rtt4SR7SIRXzk"
    "NrKqoikeRrksihVzUyAGVQOj5qalspjax0YhdBZb27vCb+UHjauLef9rkUWX9u+c/jLFGWYD9n0oDAy1qEzjHsQJ4kqR1PZQFxvQIDAQAB"
)
_WHOLE = base64.b64decode(PUBLIC)
_BARE = _WHOLE[-140:]
_RESULTS = ("ok", "missing", "revoked", "wrong-key", "wrong-type", "several", "malformed", "temperror")
SEEDS = (
    b"v=DKIM1; k=rsa; p=" + base64.b64encode(_WHOLE),
    b"p=" + base64.b64encode(_BARE) + b"; t=y:s; h=sha1:sha256; s=email",
    b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    b"v=DKIM1; p=",
    b"k=rsa; v=DKIM1; p=AAAA",
    b"v=DKIM1; p=" + base64.b64encode(b"\x30\xff" + b"\xff" * 127),
    b"v=DMARC1; p=reject; sp=none; rua=mailto:a@b.example!10m; adkim=s; pct=50",
    b"v=DMARC1; p=reject; p=none",
)


def one_input(data: bytes) -> None:
    result = _checked(data)
    assert result.result in _RESULTS and result.explanation
    if result.result == "ok":
        assert any(_BARE in _key(part) for part in data.split(b";"))
    if is_dmarc(data):
        record = parse_dmarc(data)
        assert record.policy in ("", "none", "quarantine", "reject")
        assert record.inherited_policy in ("", "none", "quarantine", "reject")
        assert record.valid or (not record.policy and record.faults)


def _checked(record: bytes) -> KeyResult:
    evaluation = check_key("b.example", "sel", PUBLIC)
    assert next(evaluation) == Question("sel._domainkey.b.example", "TXT")
    try:
        evaluation.send(Answer("ok", (record,)))
    except StopIteration as end:
        return end.value
    raise AssertionError("one answer is enough")


def _key(part: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(part.partition(b"=")[2].split()))
    except binascii.Error:
        return b""


if __name__ == "__main__":
    from _run import run

    run(__file__)
