"""What holds for every test: its name is the same in every process that collects it."""

from __future__ import annotations


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Names a case of long octets by its argument and number.

    Tests run in several processes, which must agree on every name. Octets that were made while collecting (an
    archive with its times, a key, a certificate) differ between them, and nobody reads them in a name.
    """
    return argname if isinstance(val, bytes) and len(val) > 64 else None
