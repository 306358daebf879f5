"""`python -m guidefold` and the `guidefold` command."""

import sys

from guidefold.cli import main

if __name__ == "__main__":
    sys.exit(main())
