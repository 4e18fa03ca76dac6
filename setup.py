"""Metadata, and the one place that says which folder is which package.

`heads/`, `eval/` and `checkpoints/` stand at the top level and are parts of the package: this mapping tells
installers, the relative links inside `molmopoint/` tell people, editors and type checkers.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
ROOMS = {
    "molmopoint.heads": "heads",
    "molmopoint.eval": "eval",
    "molmopoint.checkpoints": "checkpoints",
}
FOLDERS = {"molmopoint": "molmopoint", **ROOMS}
# A set, because the links list the rooms a second time.
PACKAGES = {*FOLDERS} | {
    f"{package}.{name}" for package, folder in FOLDERS.items() for name in find_packages(folder)
}

VIDEO = [
    "torchcodec>=0.11",
    "av>=14",
]  # older torchcodec does not turn rotated videos, and PyAV reads instead
TRAIN = ["accelerate>=1.10", "peft>=0.17", "datasets>=4", "tensorboard>=2.18"]
RL = ["trl>=1.16,<2", *TRAIN]
EVAL = ["jinja2>=3.1", "pycocotools>=2.0.8", "pyarrow>=18"]
VIZ = ["matplotlib>=3.9"]
SCREENS = ["playwright>=1.49"]
RAY = ["ray[data]>=2.40"]
QUANTIZE = ["torchao>=0.18", "bitsandbytes>=0.50"]
SERVE = [
    "fastapi>=0.115",
    "uvicorn>=0.32",
    "httpx>=0.27",
    "prometheus-client>=0.20",
    "python-multipart>=0.0.18",
    "mcp>=2.3,<3",
]
# vLLM pins torch and transformers, so it is for an environment of its own, and neither in `dev` nor in `all`.
VLLM = ["vllm>=0.33,<0.34", "transformers>=5.20.2,<5.21"]
# Older torch runs everything, but resizes with other rounding: 2.14.1 differs from the reference by one level
# in up to 8 of 10,000 values.
TEST = [
    "torch>=2.15", "pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.120", "jsonschema>=4.23", "av>=14", *TRAIN, *EVAL,
    "bitsandbytes>=0.50",
    # for the tests that transformers has for models: what they import, and what its source distribution is
    # built with
    "parameterized>=0.9", "setuptools>=77",
    # for the notebook
    "nbclient>=0.10", "ipykernel>=6.29",
]  # fmt: skip
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10"]
DEV = ["ruff>=0.12", "pyright>=1.1.400", "build>=1.2", "pre-commit>=4", *DOCS, *SCREENS, *SERVE]


def version() -> str:
    """The version, read without importing the package, whose dependencies are not installed yet."""
    found = re.search(
        r'__version__ = "([^"]+)"', (ROOT / "molmopoint" / "version.py").read_text(encoding="utf-8")
    )
    if found is None:
        raise RuntimeError('expected a line `__version__ = "..."` in molmopoint/version.py')
    return found[1]


def description() -> str:
    """The README, if it is there."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="molmopoint",
    version=version(),
    description="Vision-language models that point with grounding tokens",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=sorted(PACKAGES),
    package_dir=FOLDERS,
    package_data={
        "molmopoint": ["py.typed"],
        "molmopoint.checkpoints": ["README.md", "zoo.json", "nano/*", "nano_reward/*", "nano_screens/*"],
        "molmopoint.data": ["*.schema.json"],
        "molmopoint.screens": ["*.js"],
        "molmopoint.serving": ["page/*"],
        "molmopoint.eval.reports": ["published.json", "templates/*"],
        "molmopoint.training": ["recipes/*.toml"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.20.2,<6",
        "timm>=1.0.15",
        "einops>=0.8",
        "safetensors>=0.5",
        "huggingface_hub>=1.0",
        "numpy>=1.26",
        "pillow>=10.4",
        "scipy>=1.13",
        "pydantic>=2.10",
        "typer>=0.15",
        "rich>=13.9",
        "jinja2>=3.1",
        "pyyaml>=6",
        "filelock>=3.12",
    ],
    extras_require={
        "flash": ["flash-attn>=2.7"],
        "video": VIDEO,
        "train": TRAIN,
        "rl": RL,
        "eval": EVAL,
        "viz": VIZ,
        "screens": SCREENS,
        "serve": SERVE,
        "quantize": QUANTIZE,
        "vllm": VLLM,
        "ray": RAY,
        "test": TEST,
        "docs": DOCS,
        "dev": DEV + TEST,
        "all": sorted(
            {*VIDEO, *TRAIN, *RL, *EVAL, *VIZ, *SCREENS, *SERVE, *QUANTIZE, *RAY, *TEST, *DEV}
        ),  # without flash-attn, which needs a compiler, and vLLM, which pins torch
    },
    entry_points={
        "console_scripts": ["molmopoint=molmopoint.cli:main"],
        "lmms_eval.models": ["molmopoint=molmopoint.eval.lmms_adapter:manifest"],
        "vllm.general_plugins": ["molmopoint=molmopoint.serving.vllm.plugin:register"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
