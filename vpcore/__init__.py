"""vpcore: what compressing a vision network costs when it is adapted by visual prompting or linear probing.

The names below are what a researcher needs for a network, images or logits of their own; each is imported when it is first
used. The rooms of the package follow the data: `data` (images), `networks`, `pruning` and `quantization` (compressed
networks), `weights` (their files), `prompting` and `probing` (adaptation), `calibration` (metrics), `study` (a grid of runs
and its records), `report` (statistics and figures), `bench` (speed). The README shows the tree.
"""

from vpcore.faces import face

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "errors": "InputError",
        "data.class_folders": "image_folder",
        "data.corruptions": "corrupt",
        "data.images": "Images",
        "data.packing": "pack",
        "data.splits": "shots",
        "data.tasks": "load",
        "networks.backbones": "MODELS prunable",
        "networks.frozen": "Frozen",
        "networks.training": "Recipe fit",
        "pruning.iterative": "iterative_magnitude_pruning",
        "pruning.masks": "apply_ density prune",
        "pruning.methods": "METHODS",
        "quantization.layers": "quantize",
        "quantization.training": "finish_lsq load_lsq prepare_lsq",
        "weights.tickets": "load_ticket_ save_ticket",
        "prompting.label_mapping": "MAPPINGS",
        "prompting.prompts": "PROMPTS",
        "prompting.visual_prompting": "visual_prompt",
        "probing.fine_tuning": "fine_tune",
        "probing.linear_probing": "linear_probe",
        "probing.optimal_probing": "optimal_probe",
        "calibration.all_metrics": "METRICS metrics",
        "calibration.binned": "Reliability reliability",
        "calibration.conformal": "conformal_sets",
        "calibration.predictions": "Predictions",
        "calibration.recalibration": "RECALIBRATIONS",
        "calibration.scores": "interval",
    },
)
