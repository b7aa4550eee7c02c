"""quadflow.adapters: flow-matching models, the Bi-Anchor solver, the command line; solve_ivp."""

from quadflow.lazy import exported

with exported(__name__):
    from .backbones.pretrained import load_backbone as load_backbone
    from .backbones.pretrained import load_sidenet as load_sidenet
    from .backbones.pretrained import load_unet as load_unet
    from .fitted.fit_sampler import fit_sampler as fit_sampler
    from .fitted.fit_sidenet import FittedSideNet as FittedSideNet
    from .fitted.fit_sidenet import fit_sidenet as fit_sidenet
    from .fitted.fitted import FittedSampler as FittedSampler
    from .fitted.shipped import shipped_fitted as shipped_fitted
    from .flow.data_prediction import DataPredictionInterpolant as DataPredictionInterpolant
    from .flow.field import CONVENTIONS as CONVENTIONS
    from .flow.field import Convention as Convention
    from .flow.field import FlowField as FlowField
    from .flow.field import Guidance as Guidance
    from .sampling.editing import Edited as Edited
    from .sampling.editing import edit as edit
    from .sampling.editing import invert as invert
    from .sampling.sample import Samples as Samples
    from .sampling.sample import initial_noise as initial_noise
    from .sampling.sample import sample as sample
    from .sampling.sample import time_grid as time_grid
    from .sampling.samplers import SAMPLERS as SAMPLERS
    from .sampling.samplers import bianchor_plan as bianchor_plan
    from .sampling.samplers import single_anchor_plan as single_anchor_plan
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
