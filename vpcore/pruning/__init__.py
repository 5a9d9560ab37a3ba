"""Pruning: which weights are kept (masks), by which method, and how the sparse network is trained or put right."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "iterative": "iterative_magnitude_pruning",
        "masks": "apply_ density density_of_round full magnitude measure prune select",
        "methods": "METHODS SparseMethod",
        "reconstruction": "reconstruct_ reestimate_batch_norm_",
        "rounds": "make_round",
        "saliency": "sensitivity",
    },
)
