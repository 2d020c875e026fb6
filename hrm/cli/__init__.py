"""The command line: one module for each command, found through `hrm.cli.main`.

No module here imports torch before its command runs, so that help and completion answer at once.
"""
