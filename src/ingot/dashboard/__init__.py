"""What is shown of runs: the report of one run as a self-contained page."""

from ingot.dashboard.report import write_report

__all__ = ["write_report"]
