"""Weights: how networks are kept (tickets), and where others come from (files of other projects, published weights)."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "checkpoints": "load_checkpoint",
        "published": "frozen_backbone pretrained",
        "tickets": "load_ticket_ read_ticket save_ticket write_ticket",
    },
)
