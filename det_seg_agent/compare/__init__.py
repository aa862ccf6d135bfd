"""Comparisons: a matrix of strategy x ratio x seed with its controls, run, tabulated and put on one page."""
