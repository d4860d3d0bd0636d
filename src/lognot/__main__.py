"""`python3 -m lognot` is the program."""

import sys

from lognot.cli import main

if __name__ == "__main__":
    sys.exit(main())
