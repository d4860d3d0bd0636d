"""logNOT: watch logs as they are written, count the lines that match, and run a command."""

__version__ = "0.1.0"
