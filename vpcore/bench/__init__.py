"""Bench: how fast the pieces are, against the floor and against the plain protocol. Only the command line imports it."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(__name__, {"pieces": "PIECES"})
