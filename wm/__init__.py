"""World Models (Ha & Schmidhuber, 2018) as a pipeline: V sees, M predicts, C acts."""

import sys

from wm.core import portable

portable.apply()
if sys.argv[:1] != ["-m"]:  # a command of ours starts again instead
    portable.warn()

__version__ = "0.2.0"
