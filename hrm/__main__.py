"""`python -m hrm`: the same as `hrm`."""

from hrm.cli.launch import main

if __name__ == "__main__":
    main()
