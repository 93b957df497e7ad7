"""The run folder: written unit by unit, merged, aggregated, and read back. It knows files, not models."""

from robustlab.runs.folder import Run
from robustlab.runs.results import results
from robustlab.runs.stored import StoredRun, read_run

__all__ = ["Run", "StoredRun", "read_run", "results"]
