"""LIBERO and LIBERO-PRO, served from a Python of their own."""
