"""`robustlab train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from robustlab.cli.app import Flag, app, command_line


@app.command
def train(
    model: str,
    /,
    *,
    data: str | None = None,
    recipe: str | None = None,
    set: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    epochs: int | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    limit: int | None = None,
    output: Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    data_root: Path | None = None,
    download: Flag = False,
    size: str | None = None,
    workers: int | None = None,
    skip_bad: Flag = False,
    resume: Flag = False,
    overwrite: Flag = False,
) -> int:
    """Train a classifier, plain or by a defense, and write a model card that `robustlab attack` takes.

    Parameters
    ----------
    model
        What to train: an architecture (cnn, resnet18, resnet20, vit), torchvision:NAME or FILE.py:function, from random
        weights; a zoo name, again as its card says; or a model card (or its folder), further from its weights. The
        function gets the number of classes and (channels, height, width) if it has parameters named classes and shape,
        and its network gets images in [0, 1]: normalisation belongs inside.
    data
        As --data of `robustlab attack`; default: the card's, or road-signs. A folder:PATH of class folders, without
        train and test, is divided 80/10/10 by a key of the images' names; an attack then uses the last tenth only.
    recipe
        A card in defenses/, by name or path (default plain, or the zoo entry's own).
    set
        Other fields of the recipe or its defense: key=value, such as lr=0.01 batch_size=32 clip=1.
    epochs
        Passes over the training images.
    eps
        Budget of the defense.
    limit
        Train on the first N images.
    output
        The folder to write (default reports/train-MODEL-DATE-TIME).
    seed
        Key of all random draws (default: the zoo entry's, or 0).
    device
        auto, cpu, cuda or cuda:N.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download what is missing.
    size
        Side in pixels, or HEIGHTxWIDTH: of road-signs and gtsrb (a side); of folder:PATH, whose images are scaled until
        they cover it and cropped around their centre.
    workers
        Threads that decode the images of folder:PATH (default: as many as processors, at most 4).
    skip_bad
        Leave out files of folder:PATH that are no images, and say which.
    resume
        Go on with the training in --output.
    overwrite
        Replace the training in --output.
    """
    from robustlab.cli import train_job

    return train_job.train_command(
        model,
        data=data,
        recipe=recipe,
        given=[*(set or []), *train_job.as_settings(epochs=epochs, eps=eps, train_size=limit)],
        output=output,
        seed=seed,
        device=device,
        data_root=data_root,
        download=download,
        size=size,
        workers=workers,
        skip_bad=skip_bad,
        resume=resume,
        overwrite=overwrite,
        command=command_line(),
    )
