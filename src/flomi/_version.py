"""The version, apart from the package so that any module may say it."""

__version__ = "0.1.0"
