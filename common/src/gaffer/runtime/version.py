"""The version of Gaffer."""

__version__ = "0.6.0"
