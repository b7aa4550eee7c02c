"""quadflow.adapters: flow-matching models, the Bi-Anchor solver, the command line; solve_ivp."""

from typing import TYPE_CHECKING

from quadflow.lazy import export

if TYPE_CHECKING:  # what `export` finds, for those who read types
    from .backbones.pretrained import load_backbone as load_backbone
    from .backbones.pretrained import load_sidenet as load_sidenet
    from .backbones.pretrained import load_unet as load_unet
    from .flow.data_prediction import DataPredictionInterpolant as DataPredictionInterpolant
    from .flow.field import CONVENTIONS as CONVENTIONS
    from .flow.field import Convention as Convention
    from .flow.field import FlowField as FlowField
    from .flow.field import Guidance as Guidance
    from .sampling.editing import Edited as Edited
    from .sampling.editing import edit as edit
    from .sampling.editing import invert as invert
    from .sampling.sample import SAMPLERS as SAMPLERS
    from .sampling.sample import Samples as Samples
    from .sampling.sample import bianchor_plan as bianchor_plan
    from .sampling.sample import initial_noise as initial_noise
    from .sampling.sample import sample as sample
    from .sampling.sample import single_anchor_plan as single_anchor_plan
    from .sampling.sample import time_grid as time_grid
    from .sidenet.mlp import MLPSideNet as MLPSideNet
    from .sidenet.mlp import MLPSideNetConfig as MLPSideNetConfig
    from .sidenet.network import BiAnchor as BiAnchor
    from .sidenet.network import SideNet as SideNet
    from .sidenet.network import SideNetConfig as SideNetConfig
    from .sidenet.network import SideNetInterpolant as SideNetInterpolant
    from .sidenet.network import SingleAnchor as SingleAnchor
    from .sidenet.network import prepare as prepare
    from .sidenet.published import save_published_sidenet as save_published_sidenet
    from .training.sidenet import ChainConfig as ChainConfig
    from .training.sidenet import train_sidenet as train_sidenet

__all__ = export(
    __name__,
    {
        ".sampling.editing": "Edited edit invert",
        ".flow.data_prediction": "DataPredictionInterpolant",
        ".flow.field": "CONVENTIONS Convention FlowField Guidance",
        ".backbones.pretrained": "load_backbone load_sidenet load_unet",
        ".sidenet.published": "save_published_sidenet",
        ".sampling.sample": (
            "SAMPLERS Samples bianchor_plan initial_noise sample single_anchor_plan time_grid"
        ),
        ".sidenet.network": (
            "BiAnchor SideNet SideNetConfig SideNetInterpolant SingleAnchor prepare"
        ),
        ".sidenet.mlp": "MLPSideNet MLPSideNetConfig",
        ".training.sidenet": "ChainConfig train_sidenet",
    },
)
