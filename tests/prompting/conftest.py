import pytest
import torch

from tests.prompting.tiny_network import tiny_network
from vpcore.networks.frozen import Frozen


@pytest.fixture
def network(cpu: torch.device) -> Frozen:
    """A tiny one, in float64: in float32 the rounding of another batch size may decide a near tie of two source classes."""
    model = tiny_network()
    frozen = Frozen(model, precision="float32", device=cpu).double()
    frozen.dtype = torch.float64
    return frozen
