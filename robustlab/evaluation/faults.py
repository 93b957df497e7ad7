"""Who failed? A model: its samples count as errors. The user or the machine: the run ends. Or robustlab itself."""

from __future__ import annotations

from robustlab.base.errors import RunError, UserError
from robustlab.base.memory import of_the_machine
from robustlab.base.words import kind_and_line
from robustlab.oracle import of_the_model


def ends_the_run(error: Exception) -> bool:
    """Is the user's input or the machine the cause, and not the model?"""
    return isinstance(error, UserError | RunError) or of_the_machine(error)


def blamed_on_model(error: Exception, where: str) -> str:
    """What the model raised, in words; an error that no model raised is raised again. where: what was being done."""
    if ends_the_run(error):
        raise error
    if not of_the_model(error):  # it says nothing about the model's robustness
        raise RunError(
            f"{where}: {kind_and_line(error)}. The model did not raise this: it is a fault of robustlab, or of what it"
            " uses. Please report it. What is finished is kept."
        ) from error
    return kind_and_line(error)
