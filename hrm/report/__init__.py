"""The report that `hrm report` writes: runs compared on one HTML page."""
