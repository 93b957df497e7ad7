"""`python -m robustlab` is the command `robustlab`."""

from robustlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
