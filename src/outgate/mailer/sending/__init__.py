"""What both mail services are made of: the steps of a send, what goes on the wire, results, errors, limits.

Standards: RFC 6409 (submission).
Promises: nothing is imported with the package.
Not here: the services (`mailer.client`, `mailer.async_client`), which applications import.
"""
