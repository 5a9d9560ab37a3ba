"""The report: statistics and verdicts, figures, and what notebooks work with."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "claims": "matching_bits matching_round primary scarcity",
        "inference": "estimate flipped",
        "notebook": "Study open_study",
        "pairs": "costs effects",
        "parameters": "check_parameters",
        "verdicts": "Estimate holm verdict",
    },
)
