"""A sticker that makes a stop sign read as a speed limit: fitted, measured beside controls, printed, photographed.

python examples/stickers.py --output stickers    (93 s were measured on one core)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from robustlab import load_model
from robustlab.physical import RP2, answers, controls, judged
from robustlab.worlds.road_signs import Ranges

MODEL = "road-signs/cnn"
RANGES = Ranges(distance=(3.0, 20.0), yaw=30.0)  # metres, degrees to either side


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("stickers"), help="a folder (default: stickers)")
    parser.add_argument("--steps", type=int, default=300, help="of the fit; few for a quick look (default: 300)")
    parser.add_argument("--scenes", type=int, default=500, help="to judge it on (default: 500)")
    args = parser.parse_args(argv)
    file = args.output / "stop.safetensors"
    if file.exists():
        parser.error(f"{file} is there already: remove it, or give another --output.")

    model = load_model(MODEL)
    sticker = RP2("stop", "speed limit 45", steps=args.steps, ranges=RANGES).fit(model)
    sticker.save(file)

    scenes = judged(sticker, args.scenes, seed=0, ranges=RANGES)  # none of them was seen by the fit
    print(f"{MODEL}, a stop sign read as speed limit 45, of the scenes in which the bare sign is read right:")
    for name, one in {"sticker": sticker, **controls(sticker)}.items():
        found = answers(model, one, scenes).summary()["success"]
        share = "no scene" if found["value"] is None else "{value:6.1%}  ({low:.1%} to {high:.1%})".format(**found)
        print(f"  {name:16} {share}, n = {found['n']}")
    print(f"""
Print it, cut it out, and stick it where the first page says:
  robustlab print {file} --output {args.output}/paper
Photograph the sign, crop each picture to the sign, put them into photos/stop/, and ask the model. The clean accuracy of
this run is the share that is read right all the same; the page shows what the others were read as:
  robustlab attack {MODEL} --data folder:photos""")


if __name__ == "__main__":
    main()
