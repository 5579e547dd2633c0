"""Outgate: the controlled way out for an organisation's mail."""

__version__ = "0.1.0"
