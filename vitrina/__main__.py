"""`python -m vitrina` is the command `vitrina`."""

from __future__ import annotations

import sys

from vitrina.cli import main

sys.exit(main())
