"""The combinations of prompts and mappings that are tested, in float64, on a task that takes no time."""

import dataclasses

from tests.prompting.tiny_network import tinted
from vpcore.data.images import Images
from vpcore.prompting.fixed_prompts import Prompt
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.prompts import PROMPTS, PromptKind, input_px

REPEATED = ("ilm", "ilm-running", "assignment", "blm", "blm+")  # found anew before every epoch
METHODS = [*((prompt, "ilm") for prompt in PROMPTS), *(("pad", name) for name in MAPPINGS if name != "ilm"), ("smm", "blm+")]


def task(prompt: str = "pad", *, tint: int = 80, targets: int = 3) -> Images:
    """24 images of the side that a prompt wants."""
    images, labels = tinted(px=input_px(prompt, canvas=16, image_px=8), tint=tint)
    return Images(images, labels, tuple("abcdefghi"[:targets]))


def doubled(name: str) -> PromptKind:
    """The kind of a prompt in float64 as well, so that Adam does not enlarge the rounding of gradients that are zero."""
    kind = PROMPTS[name]

    def make(seeds: list[int], canvas: int, image_px: int) -> Prompt:
        prompt = kind.make(seeds, canvas, image_px).double()
        prompt.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(), *inputs[1:]))
        return prompt

    return dataclasses.replace(kind, make=make)
