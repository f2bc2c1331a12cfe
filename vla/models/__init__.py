"""Networks: backbones, projectors, action heads, and what fuses, saves and loads them."""

from vla.kernels.loading import load_triton

load_triton()  # transformers imports it sooner or later, perhaps after a picture of a software renderer
