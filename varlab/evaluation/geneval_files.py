"""GenEval's folders and files."""

OFFICIAL_NAME = r"\d+\.png"  # matched at the front alone, so that 0001.png.bak is read
