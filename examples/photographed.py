"""A sticker for a sign that you photographed: fitted on your pictures, measured beside controls, printed.

python examples/photographed.py photo.png "104,88 412,96 405,398 98,390" --label stop --output my-sign

Give a picture or a folder of video frames, cropped to the sign and a little around it, and the corners of the sign's
square in pixels of the first one, clockwise from the upper left. For a camera that moves: a JSON or CSV file with
corners for each frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from robustlab import load_model
from robustlab.physical import PhotoAttack, fit_and_judge, photographs

MODEL, SIZE = "road-signs/cnn", 32


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a picture, or a folder of video frames")
    parser.add_argument("corners", help='"x,y x,y x,y x,y", or a JSON or CSV file')
    parser.add_argument("--label", default="stop", help="what the sign is (default: stop)")
    parser.add_argument("--target", default="speed limit 45", help="what it is to be read as (default: speed limit 45)")
    parser.add_argument("--width", type=float, default=0.75, help="of the sign, in metres (default: 0.75)")
    parser.add_argument("--steps", type=int, default=300, help="of the fit; few for a quick look (default: 300)")
    parser.add_argument("--output", type=Path, default=Path("photographed"), help="a folder (default: photographed)")
    args = parser.parse_args(argv)
    file = args.output / "sticker.safetensors"
    if file.exists():
        parser.error(f"{file} is there already: remove it, or give another --output.")

    model = load_model(MODEL)
    if args.label not in model.classes:
        parser.error(f"{MODEL} knows no sign {args.label!r}, but {', '.join(model.classes)}.")
    photos = photographs(args.path, args.corners, SIZE)
    labels = torch.full((len(photos.images),), model.classes.index(args.label))
    attack = PhotoAttack(target=args.target, mask="bars", steps=args.steps)
    sticker, found = fit_and_judge(model, photos.images, photos.corners, labels, attack)
    sticker.save(file)
    sticker.print(args.output / "paper", width=args.width)

    judged = "pictures that no fit saw" if found["held_out"] else "the one picture that it was fitted on"
    print(f"{MODEL}, {args.label} read as {args.target}, of {judged}, where the bare sign is read right:")
    for view, title in (("still", "as they are"), ("camera", "one change of camera each")):
        print(f"  {title}")
        for name, each in found[view]["found"].items():
            one = each["success"]
            share = (
                "none is read right"
                if one["value"] is None
                else "{value:6.1%}  ({low:.1%} to {high:.1%})".format(**one)
            )
            print(f"    {name:16} {share}, n = {one['n']}")
    print(f"""
Print {args.output}/paper/sticker.pdf, cut it out, and stick it where the first page says. Photograph the sign again,
crop each picture to it, put them into photos/{args.label}/, and ask the model:
  robustlab attack {MODEL} --data folder:photos""")


if __name__ == "__main__":
    main()
