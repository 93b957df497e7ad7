"""Models and data sets for other tools, and theirs for robustlab: one file for each protocol."""
