"""`python -m opsengine`."""

import sys

from opsengine.cli import main

sys.exit(main())
