"""quadflow.adapters: flow-matching models, the Bi-Anchor solver, and the command line."""

from .exponential import DataPredictionInterpolant
from .flow import CONVENTIONS, Convention, FlowField, Guidance
from .pretrained import load_sidenet, load_unet
from .sampling import (
    SAMPLERS,
    Samples,
    bianchor_plan,
    initial_noise,
    sample,
    single_anchor_plan,
    time_grid,
)
from .sidenet import BiAnchor, SideNet, SideNetConfig, SideNetInterpolant, SingleAnchor, prepare
from .sidenet_mlp import MLPSideNet, MLPSideNetConfig
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
    "MLPSideNet",
    "MLPSideNetConfig",
    "Samples",
    "SideNet",
    "SideNetConfig",
    "SideNetInterpolant",
    "SingleAnchor",
    "bianchor_plan",
    "initial_noise",
    "load_sidenet",
    "load_unet",
    "prepare",
    "sample",
    "single_anchor_plan",
    "time_grid",
    "train_sidenet",
]
