"""The questions asked in a run, each one file: transfer matrix, audit, heatmaps."""
