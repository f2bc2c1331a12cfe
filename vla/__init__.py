"""Vision-language-action policies: data, training, evaluation and control."""

__version__ = "0.1.0"
