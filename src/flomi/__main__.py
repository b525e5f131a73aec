"""`python -m flomi`: the command line, also where its script is not on the path."""

import sys

from flomi.cli.commands import main

if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
