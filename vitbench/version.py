"""The version of vitbench, which the wheel and every record carry."""

__version__ = "0.2.0"
