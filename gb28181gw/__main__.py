"""`python -m gb28181gw` and the installed command."""

from __future__ import annotations

from gb28181gw.cli.main import main

if __name__ == "__main__":
    main()
