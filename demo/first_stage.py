"""The first stage that lies beside the demo checkpoint, for whatever needs two stages.

    python -m demo.first_stage

The joint rule by the clock, as `compress.joint` applies it. Only what a stage needs is kept: the
vision tower, since queries are encoded by the full tower's text tower, and no code, since this
project is there to load it.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from commands.flags import Bounds, Count, NumberFromZero, Share, WrittenPath
from commands.inputs import inputs_of
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.choices import LEAST_IMAGES
from compress.command import run_command
from compress.options import CombinationOptions, OutputOptions


@dataclass(frozen=True)
class FirstStageOptions(CombinationOptions, OutputOptions):
    """Make a first stage by the joint rule; the defaults made demo/clip-scenes-first.

    Example: python -m demo.first_stage --output results/clip-scenes-first
    """

    samples: Count = 2048
    """calibration images; alignment takes 8 at least"""
    search_samples: Annotated[int, Bounds(LEAST_IMAGES)] = 1024
    """calibration images that exits and finished towers are compared on"""
    score_samples: Count = 512
    """calibration images for the scores and the repair"""
    curve_samples: Count = 48
    """calibration images for the curves"""
    tries: Count = 3
    """combinations that are made, and the best one that merges nothing"""
    latency_constraint: tuple[Share, ...] = (0.075,)
    """measured seconds of the whole tower / the dense one's, in (0, 1]"""
    align_features: NumberFromZero | None = 0
    """random features of the alignment, which would be most of so small a checkpoint"""
    exits: tuple[Count, ...] = (2, 3, 4)
    """layers to exit after that are tried"""
    output: WrittenPath = Path("results/clip-scenes-first")
    """directory to write"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.first_stage"), FirstStageOptions, "demo.first_stage")

from transformers import PreTrainedModel

from compress.joint import rule
from compress.making.make import make, write
from compress.making.source import open_source
from compress.rule_command import summary
from pruning_mechanism.families import pruned_class


def vision_alone(model: PreTrainedModel) -> PreTrainedModel:
    """A smaller CLIP's vision tower with its projection, which shares the CLIP's tensors."""
    tower = pruned_class(model.config.vision_config)
    settings = model.config.vision_config.to_dict() | {
        "projection_dim": model.config.projection_dim
    }
    config_class = tower.config_class  # which every pruned class names
    alone = tower(config_class.from_dict(settings))  # type: ignore[union-attr]
    own = alone.state_dict().keys()
    kept = {name: tensor for name, tensor in model.state_dict().items() if name in own}
    alone.load_state_dict(kept, assign=True)
    alone.eval()
    return alone


def drop_code(directory: Path) -> None:
    """Take the code of its class, and what points at that, out of a checkpoint's directory."""
    for file in directory.glob("*.py"):
        file.unlink()
    file = directory / "config.json"
    config = {k: v for k, v in json.loads(file.read_text()).items() if k != "auto_map"}
    file.write_text(json.dumps(config, indent=2) + "\n")


def main(options: FirstStageOptions) -> None:
    """Search, keep the vision tower, save."""
    joint = rule(options)
    (setting,) = joint.settings
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        source = open_source(options.checkpoints, options.sampling, joint.needs)
        joint.check(source, joint.asked[setting])
        result = make(source, joint, setting, options.finish)
        stage = replace(
            result,
            model=vision_alone(result.model),
            processor=getattr(result.processor, "image_processor", result.processor),
            towers=(),
            step=replace(result.step, files=None),
        )
        write(stage, source, directory)
        drop_code(directory)
    for line in (*result.compression.notes, *summary(source, result)):
        console().print(line)
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)
