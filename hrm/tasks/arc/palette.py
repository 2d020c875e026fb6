"""ARC's colours as they are usually shown, each with an ink that its digit can be read in."""

WHITE, BLACK = "#FFFFFF", "#000000"
COLORS = (  # fill and ink of colours 0 to 9
    ("#000000", WHITE),
    ("#0074D9", WHITE),
    ("#FF4136", BLACK),
    ("#2ECC40", BLACK),
    ("#FFDC00", BLACK),
    ("#AAAAAA", BLACK),
    ("#F012BE", BLACK),
    ("#FF851B", BLACK),
    ("#7FDBFF", BLACK),
    ("#870C25", WHITE),
)
