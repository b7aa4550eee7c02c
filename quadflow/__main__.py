"""`python -m quadflow`: the command line."""

import sys

from quadflow.adapters.cli import main

sys.exit(main())
