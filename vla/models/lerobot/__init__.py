"""SmolVLA, pi0 and pi0.5 saved by lerobot: loaded strictly, run on prefix and step graphs, saved back."""

from vla.models.lerobot.checkpoint import LerobotCheckpoint, load_lerobot
from vla.models.lerobot.config import LerobotConfig, parse_config
from vla.models.lerobot.flow import FlowInputs, FlowNet

__all__ = ["FlowInputs", "FlowNet", "LerobotCheckpoint", "LerobotConfig", "load_lerobot", "parse_config"]
