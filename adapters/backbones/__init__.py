"""Backbones: networks that are velocity fields of a flow."""

from .unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig"]
