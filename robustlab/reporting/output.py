"""Writing what a reader asked for, without taking away what somebody else wrote."""

from __future__ import annotations

from pathlib import Path

from robustlab.errors import RunError, UserError
from robustlab.files import replacing


def check_output(output: Path, *, replace: bool) -> None:
    """UserError where a file cannot be written, or where one lies that may not go (replace: it may)."""
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; a file was expected.")
    if output.exists() and not output.is_file():
        raise UserError(f"--output {output} is no regular file. Choose another --output.")
    if output.exists() and not replace:
        raise UserError(f"{output} is there already. Add --overwrite to replace it, or choose another --output.")


def write_output(output: Path, data: bytes) -> None:
    """Write a file whole or not at all, and its folder where there is none. RunError where the disk refuses."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as file:
            file.write(data)
    except OSError as error:
        raise RunError(f"Cannot write {output}: {error.strerror}. Mend that, or choose another --output.") from error
