"""python -m cosim.trace: see `cosim.trace.command`."""

import sys

from cosim.trace.command import main

if __name__ == "__main__":
    sys.exit(main())
