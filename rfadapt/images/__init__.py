"""Unpaired translation of images by a flow, and how well it is done."""

from .content import ContentEncoder
from .translator import ImageTranslator

__all__ = ["ContentEncoder", "ImageTranslator"]
