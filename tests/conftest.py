"""What holds for every test: it has one name in all processes that collect it, and chance has no say in how it ends."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from outgate.store import keys, migrations
from support import rsa_keys
from support.databases import by_copy

# The same examples in each run, and none is too slow: how long one takes is the machine's affair. "explore" looks for
# new ones (docs/security.md), also where CI is set, for which Hypothesis has defaults of its own.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False)
settings.register_profile("suite", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("suite")

# A shell that runs the tests in the background has them ignore this, and the programs that they start would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

migrations._run_alembic = by_copy
keys.rsa = rsa_keys


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Names a case of long octets by its argument and number.

    Tests run in several processes, which must agree on every name. Octets that were made while collecting (an
    archive with its times, a key, a certificate) differ between them, and nobody reads them in a name.
    """
    return argname if isinstance(val, bytes) and len(val) > 64 else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Looks for no garbage while there is only more and more, and never again in what has come together then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
