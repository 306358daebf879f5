"""Count the bytes that a store keeps of a state and of a trajectory, for published models at their usual sizes.

Nothing is run: the sizes are those of the arrays that the pipelines of diffusers pass to their denoisers.
"""

from math import prod

from guidefold import ui

BYTES = 2  # of a bfloat16 number
KEPT = 8  # states of a trajectory, the default
Shape = tuple[int, ...]

# what a state holds (latents, and as much for the guided prediction), and what a trajectory's states share
MODELS: dict[str, tuple[Shape, tuple[Shape, ...]]] = {
    "SDXL, 1024x1024": ((4, 128, 128), ((77, 2048), (1280,), (6,))),
    "SD3.5, 1024x1024": ((16, 128, 128), ((77 + 256, 4096), (2048,))),
    "FLUX.1, 1024x1024": ((4096, 64), ((512, 4096), (768,), (512, 3), (4096, 3))),
    "Qwen-Image, 1024x1024, 128 tokens": ((4096, 64), ((128, 3584), (128,))),
    "Wan 2.1, 832x480, 81 frames": ((16, 21, 60, 104), ((512, 4096),)),
    "HunyuanVideo, 1280x720, 129 frames": ((16, 33, 90, 160), ((256, 4096), (768,), (256,))),
}
# residuals of a ControlNet for SDXL at 1024x1024: channels and side
CONTROLNET = ((320, 128),) * 3 + ((320, 64), (640, 64), (640, 64), (640, 32), (1280, 32), (1280, 32), (1280, 32))


def counted(latents: Shape, shared: tuple[Shape, ...]) -> dict[str, int]:
    """Return bytes of a state, of what a trajectory's states share, and of a trajectory."""
    # the latents, the guided prediction; timestep, energy, trajectory and step
    state = 2 * BYTES * prod(latents) + 4 + 4 + 8 + 8
    once = BYTES * sum(map(prod, shared)) + 4 + 8  # scale and condition
    return {"state": state, "shared": once, "trajectory": KEPT * state + once}


def main() -> None:
    results = {name: counted(*shapes) for name, shapes in MODELS.items()}
    controlnet = BYTES * sum(channels * side**2 for channels, side in CONTROLNET)
    rows = [[name, *(ui.size(value) for value in values.values())] for name, values in results.items()]
    ui.table(
        "A store's bytes in bfloat16", ["", "a state", "its trajectory once", f"a trajectory, {KEPT} states"], rows
    )
    ui.say(f"a ControlNet's residuals add {ui.size(controlnet)} to a state of SDXL")


if __name__ == "__main__":
    main()
