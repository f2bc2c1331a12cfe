"""Training stages: what learns when (docs/training_stages.md)."""
