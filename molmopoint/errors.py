"""The errors a user of the library can meet, beside `ValueError` and `TypeError`.

Every message says what was expected, what arrived, and what to do.
"""


class MolmoPointError(ValueError):
    """Base of every error the library raises on purpose about its input."""


class ProcessingError(MolmoPointError):
    """A picture, video, prompt or chat template cannot be turned into model input."""


class GroundingError(MolmoPointError):
    """Token ids, selections or text that cannot be points of the given input."""


class CheckpointError(MolmoPointError):
    """Weights or a config that are missing, truncated, or do not fit each other."""


class NumericalError(MolmoPointError):
    """A model computed numbers that are not finite: damaged weights, or a dtype with too small a range."""


class RecipeError(MolmoPointError):
    """A training recipe with an unknown key, a value of another type, or one out of range."""


class EvaluationError(MolmoPointError):
    """Data, predictions or settings of a benchmark that cannot be used or do not fit each other."""


class TrainingError(MolmoPointError):
    """A training run that cannot start, go on or be saved."""


class InputWarning(UserWarning):
    """Input that is used, but not as it came: of a damaged video, for example, only the good part."""
