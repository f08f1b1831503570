"""python -m wm."""

import sys

from wm.cli import main

sys.exit(main())
