"""Weights: how networks are kept (tickets), and where others come from (files of other projects, published weights)."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "published": "load_checkpoint pretrained",
        "tickets": "load_ticket_ read_ticket save_ticket write_ticket",
    },
)
