"""One network that judges all answers to a question in one pass."""

from molmopoint.processing.rows import Row, collate
from molmopoint.reward.grpo import RewardFunction
from molmopoint.reward.judge import Judge, load_reward, orders
from molmopoint.reward.model import RewardModel, RewardOutput
from molmopoint.reward.rows import PromptPart, RowBuilder
from molmopoint.reward.settings import SEPARATOR, RewardSettings, add_separator

__all__ = [
    "SEPARATOR",
    "Judge",
    "PromptPart",
    "RewardFunction",
    "RewardModel",
    "RewardOutput",
    "RewardSettings",
    "Row",
    "RowBuilder",
    "add_separator",
    "collate",
    "load_reward",
    "orders",
]
