"""Audit: the protocol of the study asked of networks of your own, a dense one and what became of it; `vpcore audit`."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "design": "Design choose",
        "findings": "Findings judge",
        "measuring": "measure",
        "networks": "Audited read_network",
        "page": "write_page",
        "options": "Options options_of",
        "run": "Audit audit",
        "tasks": "Task read_task",
    },
)
