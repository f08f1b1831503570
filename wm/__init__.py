"""World Models (Ha & Schmidhuber, 2018) as a pipeline: V sees, M predicts, C acts."""

import wm.worlds  # noqa: F401  registers the Gymnasium environments `wm/…`

__version__ = "0.1.0"
