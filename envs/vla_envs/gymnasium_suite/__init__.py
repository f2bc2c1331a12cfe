"""Gymnasium environments of others, described by a file instead of code."""
