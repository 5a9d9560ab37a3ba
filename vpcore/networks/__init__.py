"""Networks: backbones by name, how they are trained, and the frozen network for which prompts and probes are learned."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "backbones": "HALF IMAGENET MODELS ResNet build normalise prunable",
        "folding": "fold_batch_norm_",
        "frozen": "Frozen",
        "shared_border": "Framed",
        "training": "Recipe fit predict",
    },
)
