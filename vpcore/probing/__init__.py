"""Probing: a linear classifier on frozen features, and its upper bracket, the fine-tuning of the whole network."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "fine_tuning": "fine_tune",
        "linear_probing": "linear_probe probe_features",
        "optimal_probing": "optimal_probe",
    },
)
