"""RSA keys in no time: the services that run within a test's process sign with a few that are made once, by turns."""

from __future__ import annotations

import itertools
from threading import Lock
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

RSAPrivateKey = rsa.RSAPrivateKey
_FEW = 8
_made: list[RSAPrivateKey] = []
_turn = itertools.count()
_lock = Lock()


def generate_private_key(**kind: Any) -> RSAPrivateKey:
    """Return a key that is not one of the last few."""
    with _lock:
        number = next(_turn) % _FEW
        if number == len(_made):
            _made.append(rsa.generate_private_key(**kind))
        return _made[number]
