"""`torchrun -m fusion.training`: `fusion train` by one process of several."""

import sys

from fusion.training.train import main

if __name__ == "__main__":
    sys.exit(main())
