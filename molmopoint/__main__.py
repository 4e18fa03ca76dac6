"""`python -m molmopoint` is the command `molmopoint`."""

from molmopoint.cli import main

if __name__ == "__main__":
    main()
