"""What turns hidden states into choices. Torch only; every size is given, so that each head runs on five
vectors.
"""

from molmopoint.heads.grounding import ALL_STAGES, GroundingHeads, GroundingState, SelectionLogits, Stages
from molmopoint.heads.location import LocationHead
from molmopoint.heads.norm import RMSNorm
from molmopoint.heads.patch import PatchHead, patch_scale
from molmopoint.heads.region import RegionHead
from molmopoint.heads.rotary import rotate
from molmopoint.heads.subpatch import SubpatchHead
from molmopoint.heads.value import ValueHead

__all__ = [
    "ALL_STAGES",
    "GroundingHeads",
    "GroundingState",
    "LocationHead",
    "PatchHead",
    "RMSNorm",
    "RegionHead",
    "SelectionLogits",
    "Stages",
    "SubpatchHead",
    "ValueHead",
    "patch_scale",
    "rotate",
]
