"""The study: runs and the profiles that list them, what is computed for each, and the records that are kept."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "execution": "execute",
        "profile": "Profile load_profile",
        "run": "Run run_id",
        "store": "Store",
    },
)
