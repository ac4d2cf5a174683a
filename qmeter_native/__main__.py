"""``python -m qmeter_native``."""

from __future__ import annotations

from qmeter_native.cli.main import main

if __name__ == "__main__":
    main()
