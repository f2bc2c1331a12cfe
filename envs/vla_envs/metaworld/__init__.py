"""Meta-World's fifty tasks, served from a Python of their own."""
