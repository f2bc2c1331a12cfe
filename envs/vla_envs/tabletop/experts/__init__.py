"""Scripted experts: Markov (the phase is read off the state), so they can be asked anywhere."""

from vla_envs.tabletop.experts.expert import Expert

__all__ = ["Expert"]
