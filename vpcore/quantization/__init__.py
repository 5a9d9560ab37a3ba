"""Quantization: networks that compute with integers of 2 to 8 bits, through which gradients still pass."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "layers": "layer_bits quantize",
        "ranges": "QUANT_RANGES",
        "training": "finish_lsq load_lsq prepare_lsq",
    },
)
