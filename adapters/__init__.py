"""quadflow.adapters: flow-matching models, the Bi-Anchor solver, the command line; solve_ivp."""

from .editing import Edited, edit, invert
from .exponential import DataPredictionInterpolant
from .flow import CONVENTIONS, Convention, FlowField, Guidance
from .pretrained import load_backbone, load_sidenet, load_unet
from .published import save_published_sidenet
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
    "Edited",
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
    "edit",
    "initial_noise",
    "invert",
    "load_backbone",
    "load_sidenet",
    "load_unet",
    "prepare",
    "sample",
    "save_published_sidenet",
    "single_anchor_plan",
    "time_grid",
    "train_sidenet",
]
