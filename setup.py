"""Package metadata: `pip install -e .` for the library, extras for devices, tests and the demo."""

from setuptools import find_packages, setup

setup(
    name="imitation_jax",
    version="0.1.0",
    description="Imitation of proprietary language models in JAX: collect, fine-tune, measure.",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["imitation_jax", "imitation_jax.*"]),
    package_data={"imitation_jax": ["data/demo/*.jsonl", "reporting/*.html"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8",
        "etils[epath]>=1.10",
        "flax>=0.12",
        "gguf>=0.17",
        "grain>=0.2.12",
        "jax>=0.10,<0.13",
        "jinja2>=3.1",
        "ml-collections>=1.1",
        "ml-dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.25",
        "safetensors>=0.5",
        "protobuf>=5",
        "requests>=2.31",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.5",
        "scipy>=1.11",
        "sentencepiece>=0.2,<0.2.3",  # 0.2.3 refuses the protobuf that apache-beam asks for
        "tenacity>=9.0",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tokenizers>=0.21",
        "tqdm>=4.66",
    ],
    entry_points={"lm_eval.models": ["imitation_jax = imitation_jax.evaluation.lm_eval_model:ImitationJax"]},
    extras_require={
        "demo": ["matplotlib>=3.9"],
        "cuda": ["jax[cuda13]"],
        "lm-eval": ["lm-eval>=0.4.13,<0.5"],
        "tpu": ["jax[tpu]", "gcsfs>=2024.6"],
        "dev": ["hypothesis>=6.100", "import-linter>=2.3", "matplotlib>=3.9", "pytest>=8", "ruff>=0.12"],
    },
)
