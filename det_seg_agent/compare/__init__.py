"""Comparisons: train a matrix of strategy x ratio x seed with controls, and write one page of results."""
