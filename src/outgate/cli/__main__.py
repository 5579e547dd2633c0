"""`python -m outgate.cli` is `outgate`."""

from __future__ import annotations

from outgate.cli import main

if __name__ == "__main__":
    main()
