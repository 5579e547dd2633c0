"""A Cloud Manager API, Outgate's or the vendor's, as commands on this machine call it.

Standards: the vendor's OpenAPI (1.0.0) and what its client is told by settings; standard library only.
Promises: an error says what was asked, what came back and what to do; no token and no value is ever in one.
Not here: the commands (`cli.cloud_manager`, `environment`, `doctor`), finding `dev.json` (`connection`).
"""

from outgate.cloud_manager.choice import Chosen, client_id_of, from_dev_json, from_environment
from outgate.cloud_manager.client import CloudManager
from outgate.cloud_manager.refusals import BadToken, Misconfigured, NotReachable, Refused

__all__ = [
    "BadToken",
    "Chosen",
    "CloudManager",
    "Misconfigured",
    "NotReachable",
    "Refused",
    "client_id_of",
    "from_dev_json",
    "from_environment",
]
