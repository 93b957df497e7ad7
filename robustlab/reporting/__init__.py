"""Run folders -> one self-contained HTML page, and the table of the terminal. It knows files, not models."""

from robustlab.reporting.page import report
from robustlab.reporting.terminal import terminal_table, terminal_width

__all__ = ["report", "terminal_table", "terminal_width"]
