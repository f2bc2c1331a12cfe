"""Four arms, eight language-conditioned tasks, one table."""
