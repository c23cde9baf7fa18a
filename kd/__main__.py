import sys

from kd.cli import main

if __name__ == "__main__":  # processes that are spawned import it
    sys.exit(main())
