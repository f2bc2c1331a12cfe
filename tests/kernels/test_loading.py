"""Triton and a software renderer share a process, whichever comes first."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs Triton: pip install 'vla[kernels]'")
pytest.importorskip("mujoco", reason="needs a renderer: pip install mujoco")

NO_RENDERER = 77
RENDER = f"""
import os, sys
os.environ["MUJOCO_GL"] = "egl"
try:
    import mujoco
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
    renderer = mujoco.Renderer(model, 16, 16)
except (ImportError, RuntimeError, AttributeError) as problem:
    print(problem, file=sys.stderr)
    sys.exit({NO_RENDERER})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer.update_scene(data)
renderer.render()
"""
KERNELS = "import vla.kernels.triton_ops\n"
POLICY = """
from vla_policies.learned import LearnedPolicy
from vla import registry
registry.policy_factory("learned")()
"""
ANY_IMPORT = "from vla.kernels.loading import load_triton; assert load_triton(); import triton\n"


@pytest.mark.parametrize(
    "program", [RENDER + KERNELS, KERNELS + RENDER, RENDER + ANY_IMPORT + RENDER, RENDER + POLICY]
)
def test_triton_and_a_renderer_share_a_process_in_either_order(program):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == NO_RENDERER:
        pytest.skip(f"nothing renders here: {done.stderr[-200:]}")
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-500:]}"
