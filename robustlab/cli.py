"""The command: parse, call, print. Importing this module imports no torch."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from robustlab import __version__
from robustlab.errors import RunError, UserError
from robustlab.options import Options

app = App(
    name="robustlab",
    version=__version__,
    help="How does an image classifier fail, how badly, why, and what makes it better?",
    suppress_keyboard_interrupt=False,  # `main` says that the run can be resumed
)

Words = Annotated[list[str], Parameter(negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@app.command
def attack(
    *models: str,
    suite: str | None = None,
    attack: Words | None = None,
    data: str | None = None,
    norm: Literal["linf", "l2", "l1"] | None = None,
    eps: str | None = None,
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
        Zoo names (`robustlab zoo`), cards (.toml), or FILE.py:function; default road-signs/cnn and its robust twin.
    suite
        A card in attacks/, by name or path (default linf-standard).
    attack
        Attacks without a card: name:key=value,...; may be given several times.
    data
        road-signs, mnist, fashion-mnist, cifar10, cifar100, svhn, gtsrb or npz:PATH; default: what the model is for.
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
        Weights for one model: .safetensors or .pth.
    mean
        Normalisation of one model, one value or one a channel.
    std
        As --mean.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download what is missing.
    output
        The run folder (default reports/<data>-<date-time>).
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
    from robustlab import main_job

    return main_job.attack(
        main_job.Request(
            models=models,
            suite=suite,
            attacks=attack or [],
            data=data,
            threat={"norm": norm, "eps": eps, "targeted": targeted or None, "target": target},
            limit=limit,
            ids=ids or [],
            classes=classes or [],
            weights=weights,
            mean=mean,
            std=std,
            data_root=data_root,
            download=download,
            output=output,
            resume=resume,
            overwrite=overwrite,
            json=json,
            quiet=quiet,
            fail_under=fail_under,
        ),
        options,
        _command_line(),
    )


@app.command
def train(
    model: str,
    /,
    *,
    data: str | None = None,
    recipe: str | None = None,
    set: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    epochs: int | None = None,
    eps: str | None = None,
    limit: int | None = None,
    output: Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    data_root: Path | None = None,
    download: Flag = False,
    resume: Flag = False,
    overwrite: Flag = False,
) -> int:
    """Train a classifier, plain or by a defense, and write a model card that `robustlab attack` takes.

    Parameters
    ----------
    model
        An architecture (cnn, resnet20), or a zoo name to train again by its card.
    data
        As --data of `robustlab attack`; default: the zoo entry's, or road-signs.
    recipe
        A card in defenses/, by name or path (default plain, or the zoo entry's own).
    set
        Other fields of the recipe or its defense: key=value.
    epochs
        Passes over the training images.
    eps
        Budget of the defense.
    limit
        Train on the first N images.
    output
        The folder to write (default reports/train-<model>-<date-time>).
    seed
        Key of all random draws (default: the zoo entry's, or 0).
    device
        auto, cpu, cuda or cuda:N.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download what is missing.
    resume
        Go on with the training in --output.
    overwrite
        Replace the training in --output.
    """
    from robustlab import train_job

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
        resume=resume,
        overwrite=overwrite,
        command=_command_line(),
    )


@app.command
def report(*runs: str, output: Path | None = None) -> int:
    """Build the page of a run again, from its folder alone.

    Parameters
    ----------
    runs
        A run folder.
    output
        The page to write (default report.html in the run folder).
    """
    from robustlab.reporting import report

    if len(runs) != 1:
        raise UserError(f"Give one run folder, such as reports/demo; got {len(runs)}.")
    target = output or Path(runs[0]) / "report.html"
    report([Path(run) for run in runs], target)
    print(target)
    return 0


@app.command
def zoo(name: str | None = None, /) -> int:
    """List the shipped models with their measured numbers, or show one.

    Parameters
    ----------
    name
        A zoo name such as road-signs/cnn.
    """
    from robustlab.models.zoo import describe

    print(describe(name))
    return 0


@app.command
def data(
    name: str = "road-signs",
    /,
    *,
    output: Path,
    count: int = 160,
    images: Flag = False,
    split: Literal["train", "val", "test"] = "test",
    data_root: Path | None = None,
    download: Flag = False,
    seed: int = 0,
    size: int | None = None,
) -> int:
    """Look at a data set: a contact sheet, and on request the images with a CSV of their factors.

    Parameters
    ----------
    name
        As --data of `robustlab attack`.
    output
        A folder for sheet.png, and images/ and factors.csv.
    count
        How many samples.
    images
        Write the images and factors.csv too.
    split
        train, val or test.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download what is missing.
    seed
        Of a rendered world.
    size
        Side in pixels, for road-signs and gtsrb.
    """
    from robustlab.data import load_data
    from robustlab.data.sheet import write_sheet

    chosen = load_data(name, split, count, data_root=data_root, download=download, seed=seed, size=size)
    write_sheet(chosen, output, images=images, count=count)
    print(output / "sheet.png")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed or a threshold missed, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (CycloptsError, UserError) as error:
        print(f"robustlab: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"robustlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "robustlab: interrupted. What is finished is kept; the same command with --resume goes on.", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as in `robustlab zoo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _command_line() -> str:
    """What was typed, without the path of the interpreter."""
    return shlex.join(["robustlab", *sys.argv[1:]])
