"""python -m wm."""

import sys

from wm.core import portable

portable.start_again()  # before anything computes

from wm.cli import main  # noqa: E402

sys.exit(main())
