"""Try the pipelines of the installed diffusers, and write the support page.

python -m support                      # every class: support/results.json and docs/support.md
python -m support WanPipeline ...      # only these, to the terminal
"""

import sys
import warnings
from typing import Any

import diffusers
import torch

from guidefold.capture.run import parameters_of
from guidefold.capture.switch import SCALES
from guidefold.hush import hushed
from guidefold.ui import progress
from support.check import Row, check
from support.page import write

# of another kind: these build other pipelines, or run on another framework
OTHERS = ("Auto", "Flax", "Onnx", "Modular", "DiffusionPipeline", "ImagePipelineOutput")


EMBEDDED = "guidance is an input of the denoiser, there is nothing to fold"
RAISES = "raises in diffusers itself"
# of classes without components
NOTES = {
    **dict.fromkeys(("FluxFill", "FluxControl", "FluxControlImg2Img", "FluxControlInpaint"), EMBEDDED),
    **dict.fromkeys(("FluxControlNetImg2Img", "FluxControlNetInpaint", "Flux2"), EMBEDDED),
    **dict.fromkeys(("LatentConsistencyModel", "LatentConsistencyModelImg2Img"), EMBEDDED),
    **dict.fromkeys(("SanaSprint", "SanaSprintImg2Img", "VisualCloze", "VisualClozeGeneration"), EMBEDDED),
    **dict.fromkeys(("ChromaInpaint", "EasyAnimateControl", "BlipDiffusionControlNet"), RAISES),
    "DreamLiteMobile": "takes guidance scales, but ignores them",
    "StableDiffusionAttendAndExcite": "runs its denoiser for gradients; deprecated in diffusers",
    **dict.fromkeys(
        ("Amused", "AmusedImg2Img", "AmusedInpaint"), "predicts tokens; deprecated in diffusers, not tried"
    ),
    **dict.fromkeys(
        ("VersatileDiffusionDualGuided", "VersatileDiffusionImageVariation", "VersatileDiffusionTextToImage"),
        "deprecated in diffusers, not tried",
    ),
}


def names() -> list[str]:
    """Return the pipeline classes that diffusers exports."""
    found = [name for name in dir(diffusers) if name.endswith("Pipeline") or "PipelineLegacy" in name]
    return sorted(name for name in found if not any(other in name for other in OTHERS))


def tried(name: str) -> Row:
    """Return the row of a class, and say of one without components whether it has any guidance."""
    row = check(name)
    if not row.why.startswith("no components"):
        return row
    kind: Any = getattr(diffusers, name)
    scales = [argument for argument in parameters_of(kind.__new__(kind)) if SCALES.search(argument)]
    named = [argument for argument in scales if "guidance" in argument or "cfg" in argument]
    note = NOTES.get(name.removesuffix("Pipeline"), row.why)
    return Row(pipeline=name, why=note if named else "has no guidance argument")


def main() -> None:
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    wanted, rows = sys.argv[1:] or names(), []
    with progress("Trying", len(wanted)) as bar:
        for name in wanted:
            with hushed():
                rows.append(tried(name))
            bar.advance(text=name)
    if sys.argv[1:]:
        for row in rows:
            print(f"{row.pipeline}: {row.why or f'works, {row.rows_guided} rows become {row.rows_folded}'}")
        raise SystemExit(any(row.why for row in rows))
    write(rows)


if __name__ == "__main__":
    main()
