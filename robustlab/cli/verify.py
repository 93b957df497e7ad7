"""`robustlab verify`."""

from __future__ import annotations

from pathlib import Path

from robustlab.base.errors import RunError, UserError
from robustlab.base.typed import check_device, check_whole
from robustlab.cli.app import app
from robustlab.cli.flags import DataFlags, Flag, Words, check_once


@app.command
def verify(
    run: str,
    /,
    *,
    model: Words | None = None,
    weights: Words | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    run_code: Flag = False,
    audit: Flag = False,
) -> int:
    """Recompute every number of a run from its stored adversarials, with the models and the data loaded again.

    Exits with 0 if all agree, with 1 if some do not or could not be recomputed.

    Parameters
    ----------
    run
        A run folder, written by `robustlab attack --save-adversarial`.
    model
        NAME=MODEL: where a model of the run is now, as in `robustlab attack`; may be given several times.
    weights
        NAME=FILE: where the weights are now that were given as --weights.
    data
        Where the data are now, as --data of `robustlab attack`.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    device
        auto, cpu, cuda or cuda:N.
    batch_size
        Images judged at a time.
    run_code
        Run FILE.py and FILE.pt2 that the run names as its models; whoever made the run chose these names. Without it
        such a model must be given with --model.
    audit
        Audit the attack again, which takes as long as it took; without it only the checks that need no attack.
    """
    check_device(device)
    check_whole("batch-size", batch_size, 1)
    models, others = _named("--model", model), _named("--weights", weights)
    if data is not None:
        DataFlags(data_root=data_root).check(data)

    from robustlab.verification import verify

    found = verify(
        run,
        models=models,
        weights=others,
        data=data,
        data_root=data_root,
        device=device,
        batch_size=batch_size,
        run_code=run_code,
        audit=audit,
    )
    print(found)
    if found.disagreements:
        raise RunError(f"{run} does not agree with its models and data: {found.disagreements:,} disagreements, above.")
    if not found.complete:
        raise RunError(
            f"{run} was verified in part: it stores no adversarials, so what the attacks found was not recomputed."
            " Attack again with --save-adversarial."
        )
    return 0


def _named(flag: str, texts: list[str] | None) -> dict[str, str]:
    """NAME=PATH texts as a table."""
    pairs = [text.partition("=") for text in texts or []]
    wrong = next((name + equals + path for name, equals, path in pairs if not (name and path)), None)
    if wrong is not None:
        raise UserError(
            f"{flag} expects NAME=PATH, NAME as in the run, such as road-signs/cnn=mine/model.toml; got {wrong!r}."
        )
    check_once(flag, [name for name, _, _ in pairs])
    return {name: path for name, _, path in pairs}
