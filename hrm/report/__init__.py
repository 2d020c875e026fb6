"""The report that `report.py` writes: runs compared on one HTML page."""
