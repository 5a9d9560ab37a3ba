"""Data: images as uint8 tensors with labels, wherever they come from, their splits and few-shot budgets."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "corruptions": "CORRUPTIONS corrupt",
        "splits": "hold_out shots",
        "images": "Images",
        "class_folders": "image_folder",
        "packing": "pack",
        "tasks": "classes digest fetch load",
    },
)
