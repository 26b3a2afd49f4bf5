"""`python -m serving` is `vitrina serve`."""

from __future__ import annotations

import sys

from serving.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], leave=True))
