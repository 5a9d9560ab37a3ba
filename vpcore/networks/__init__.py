"""Networks: backbones by name, how they are trained, and the frozen network that prompts and probes adapt to."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "backbones": "MODELS ResNet build normalise prunable",
        "frozen": "Frozen fold_batch_norm_",
        "shared_border": "Framed",
        "training": "Recipe fit predict",
    },
)
