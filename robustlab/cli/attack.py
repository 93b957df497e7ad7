"""`robustlab attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from robustlab.cli.app import Flag, Words, app, command_line
from robustlab.evaluation.options import Options


@app.command
def attack(
    *models: str,
    suite: str | None = None,
    attack: Words | None = None,
    surrogate: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    data: str | None = None,
    norm: Literal["linf", "l2", "l1"] | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    targeted: Flag = False,
    target: str | None = None,
    limit: str = "500",
    ids: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    weights: Path | None = None,
    mean: Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())] = None,
    std: Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())] = None,
    data_root: Path | None = None,
    download: Flag = False,
    size: str | None = None,
    workers: int | None = None,
    skip_bad: Flag = False,
    output: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
    fail_under: float | None = None,
    options: Options = Options(),  # noqa: B008, frozen
) -> int:
    """Attack classifiers, and write one page about how they fail.

    Parameters
    ----------
    models
        Zoo names (`robustlab zoo`), torchvision:NAME, cards (.toml), folders of trainings, exported programs (.pt2), or
        FILE.py:function; default road-signs/cnn and its robust twin.
    suite
        A card, by name or path: fgsm, pgd, linf-standard (the default), l2-standard, autoattack-standard,
        autoattack-l1, autoattack-rand, linf-strong, transfer.
    attack
        Attacks without a card, name:key=value,...; may be given several times: fgsm, pgd, mi-fgsm, ni-fgsm, si-ni-fgsm,
        di-fgsm, ti-fgsm, apgd, apgd-t, square, fab-t, fmn, ddn, deepfool, cw, ead, brendel-bethge.
    surrogate
        Craft every attack on these models alone (several: on the mean of their logits), and show the attacked ones only
        the finished images: a transfer attack. Names as MODEL; give MODEL first.
    data
        road-signs, mnist, fashion-mnist, cifar10, cifar100, svhn, gtsrb, npz:PATH or folder:PATH (images in class
        folders); default: what the model is for.
    norm
        Norm of the threat model; overrides the card.
    eps
        Budget, such as 8/255 or 0.5; overrides the card and the data set's default.
    targeted
        Success is only being predicted as the target.
    target
        A class name, random, or least-likely.
    limit
        The first N samples of the test split, or all.
    ids
        Only the samples with these ids.
    classes
        Only samples of these classes.
    weights
        Weights for one model: .safetensors or .pth; for torchvision:NAME also random, or a name such as IMAGENET1K_V1.
    mean
        Normalisation of one model, one value or one a channel.
    std
        As --mean.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download the data and the weights that are missing.
    size
        Side in pixels, or HEIGHTxWIDTH: of road-signs and gtsrb (a side); of folder:PATH, whose images are scaled until
        they cover it and cropped around their centre (default: what the model expects).
    workers
        Threads that decode the images of folder:PATH (default: as many as processors, at most 4).
    skip_bad
        Leave out files of folder:PATH that are no images, and say which.
    output
        The run folder (default reports/DATA-DATE-TIME).
    resume
        Go on with the run in --output.
    overwrite
        Replace the run in --output.
    json
        Print the results as JSON on stdout; everything else goes to stderr.
    quiet
        Print only warnings, errors and the table.
    fail_under
        Exit with 1 if a model's robust accuracy is below this fraction.
    """
    from robustlab.cli.asked import Request

    request = Request(
        models=models,
        suite=suite,
        attacks=attack or [],
        surrogates=surrogate,
        data=data,
        threat={"norm": norm, "eps": eps, "targeted": targeted or None, "target": target},
        limit=limit,
        ids=ids,
        classes=classes,
        weights=weights,
        mean=mean,
        std=std,
        data_root=data_root,
        download=download,
        size=size,
        workers=workers,
        skip_bad=skip_bad,
        output=output,
        resume=resume,
        overwrite=overwrite,
        json=json,
        quiet=quiet,
        fail_under=fail_under,
    )
    request.check(options)  # before torch is imported, which takes seconds

    from robustlab.cli import attack_job as main_job

    return main_job.attack(request, options, command_line())
