"""`python -m pocketvlm.export`: the export commands without the rest of the command line."""

import sys

from .cli import main

sys.exit(main())
