"""The run folder: written unit by unit, merged, aggregated, and read back. It knows files, not models."""

from robustlab.runs.folder import PartsFolder, Run
from robustlab.runs.results import results
from robustlab.runs.stored import StoredRun, read_run
from robustlab.runs.studied import StudiedRun

__all__ = ["PartsFolder", "Run", "StoredRun", "StudiedRun", "read_run", "results"]
