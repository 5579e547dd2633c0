"""A Cloud Manager API, Outgate's or the vendor's, as commands on this machine call it.

Standards: the vendor's OpenAPI (1.0.0) and what its client sends; standard library only.
Promises: an error says what was asked, what came back and what to do; no token and no value is ever in one.
Not here: the commands (`cli.cloud_manager`, `environment`, `doctor`).
"""
