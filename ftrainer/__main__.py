"""`python -m ftrainer` is the command line."""

from ftrainer.run import main

if __name__ == "__main__":
    main()
