"""``python -m ggblock`` is the command ``ggblock``."""
from ggblock.cli.main import main

if __name__ == "__main__":
    main()
