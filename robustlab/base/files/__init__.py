"""Everything that is written to the disk: single files, and folders that only ever lose what we wrote there."""

from robustlab.base.files.job import JobFolder, config_hash
from robustlab.base.files.manifest import INFO, SCHEMA_VERSION, Json, Kind
from robustlab.base.files.names import default_folder, give_back, resumable, settled, slug
from robustlab.base.files.output import OutputFolder
from robustlab.base.files.single import check_new_folder, check_output, new_folder, place_of, write_file, write_output

__all__ = [
    "INFO",
    "JobFolder",
    "SCHEMA_VERSION",
    "Json",
    "Kind",
    "OutputFolder",
    "check_new_folder",
    "check_output",
    "config_hash",
    "default_folder",
    "give_back",
    "new_folder",
    "place_of",
    "resumable",
    "settled",
    "slug",
    "write_file",
    "write_output",
]
