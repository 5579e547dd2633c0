"""The doctor: what is wrong between an application's mail configuration and its recipient, and what to change.

Standards: none.
Promises: imports nothing of the service: `mailer`, `smtp`, `connection`, `cloud_manager`, dnspython.
Not here: the command (`cli.doctor`).
"""
