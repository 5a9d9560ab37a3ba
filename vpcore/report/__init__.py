"""The report: statistics and verdicts, figures, and what notebooks work with."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "claims": "Estimate costs effects estimate verdict",
        "notebook": "Study check_parameters open_study",
    },
)
