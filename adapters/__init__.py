"""quadflow.adapters: flow-matching models, the Bi-Anchor solver, and the command line."""

from .exponential import DataPredictionInterpolant
from .flow import CONVENTIONS, Convention, FlowField, Guidance
from .pretrained import load_sidenet, load_unet
from .sampling import SAMPLERS, Samples, initial_noise, sample
from .sidenet import BiAnchor, SideNet, SideNetConfig, SideNetInterpolant
from .training import ChainConfig, train_sidenet

__all__ = [
    "CONVENTIONS",
    "SAMPLERS",
    "BiAnchor",
    "ChainConfig",
    "Convention",
    "DataPredictionInterpolant",
    "FlowField",
    "Guidance",
    "Samples",
    "SideNet",
    "SideNetConfig",
    "SideNetInterpolant",
    "initial_noise",
    "load_sidenet",
    "load_unet",
    "sample",
    "train_sidenet",
]
