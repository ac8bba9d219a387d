"""`python -m tapeline`: the command line."""

import sys

from tapeline.cli.main import main

sys.exit(main())
