"""Calibration: metrics of predictions, with and without bins, and recalibration. Knows nothing of networks."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "all_metrics": "METRICS metrics",
        "authors_ece": "legacy_ece",
        "binned": "Reliability classwise reliability toplabel",
        "conformal": "ConformalSets conformal_sets",
        "predictions": "Predictions",
        "recalibration": "RECALIBRATIONS",
        "scores": "Interval accuracy brier interval nll risk_coverage",
        "smooth_ece": "ks smooth",
    },
)
