"""`python -m prefvlm_core.cli` is `prefvlm`."""

from prefvlm_core.cli import main

if __name__ == "__main__":  # not in the processes that training starts, which import this module again
    main()
