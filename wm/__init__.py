"""World Models (Ha & Schmidhuber, 2018) as a pipeline: V sees, M predicts, C acts."""

__version__ = "0.1.0"
