"""python -m cosim: see `cosim.commands.main`."""

import sys

from cosim.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
