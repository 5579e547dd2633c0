"""Conditions that several reads of the queue share: whose mail it is, and what its subject says.

Standards: RFC 5321 section 2.3.11 (the local part is the receiver's business, so its case counts), RFC 5890.
Promises: a mailbox is found by its index whatever the case or the labels (A or U) its domain is written in.
Not here: the statements around them (`history`, `metrics`).
"""

from __future__ import annotations

import sqlite3

import idna

from outgate.smtp.grammar import BadSyntax, mailbox

Condition = tuple[str, list[str]]
"""SQL with `?`, and the value of each."""


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection what these conditions call: SQLite's own `lower` knows ASCII only."""
    connection.create_function("casefold", 1, str.casefold, deterministic=True)


def for_mailbox(text: str) -> Condition:
    """Return the condition that a row of `recipients` is for the mailbox `text`."""
    try:
        wanted = mailbox(text.encode("utf-8", "replace"))
    except BadSyntax:
        return "mailbox = ?", [text]
    # The index is in the order of octets, and "A" is the octet after "@": all domains of this local part.
    return "mailbox >= ? AND mailbox < ? AND domain = ?", [f"{wanted.local}@", f"{wanted.local}A", wanted.domain]


def from_mailbox(text: str) -> Condition:
    """Return the condition that a row of `messages` has `text` in its From field."""
    try:
        wanted = mailbox(text.encode("utf-8", "replace"))
    except BadSyntax:
        return "header_from = ?", [text]
    at = len(wanted.local) + 2
    # The field's domain is stored as it was given, so both spellings of the wanted one are compared.
    return (
        f"substr(header_from, 1, {at - 1}) = ? AND casefold(substr(header_from, {at})) IN (?, ?)",
        [f"{wanted.local}@", wanted.domain.casefold(), _in_unicode(wanted.domain)],
    )


def about(text: str) -> Condition:
    """Return the condition that a row of `messages` has `text` in its subject, in whatever case."""
    # The built-in is quicker, and right as long as no sign beyond ASCII is looked for.
    function = "lower" if text.isascii() else "casefold"
    return f"instr({function}(subject), ?) > 0", [text.lower() if text.isascii() else text.casefold()]


def _in_unicode(domain: str) -> str:
    """Return a domain with U-labels, or as it is if it has none (or is an address literal)."""
    try:
        return idna.decode(domain).casefold()
    except idna.IDNAError:
        return domain.casefold()
