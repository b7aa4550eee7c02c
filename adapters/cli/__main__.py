"""`python -m quadflow.adapters.cli`: the command line, where a launcher wants a module."""

import sys

from .main import main

sys.exit(main())
