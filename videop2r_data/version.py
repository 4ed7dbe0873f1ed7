"""The version of the package, where its own modules read it: importing it loads nothing else."""

__version__ = "0.2.0"
