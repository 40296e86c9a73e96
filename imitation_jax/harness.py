"""lm-evaluation-harness on this project's engine: any of its tasks, with every shared prefix computed once.

    python -m imitation_jax.harness --model_args model=orbax:RUN --tasks arc_easy,hellaswag --output_path RUN/lm_eval

All flags are those of `lm_eval run`, which `lm_eval run --help` lists; --model is imitation_jax where it is left out.
Releases of lm-eval that look for models in installed packages run it as `lm_eval --model imitation_jax` as well.

--model_args:
  model=...          hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]
  mesh=fsdp=-1       where it runs; write several axes as JSON: '{"model": "hf:DIR", "mesh": "fsdp=2,tensor=4"}'
  dtype=float32      float32, bfloat16 or auto
  template=model     the chat template that --apply_chat_template uses: the model's own, plain (USER:) or a .jinja file
  max_length=N       cut prompts to so many tokens, from the left; default: what the model has positions for
  add_bos_token=...  true or false where the tokenizer's own way is not wanted

  --debug  Show the traceback of an error.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs lm-eval's own command with this model registered; 0, or 1 after one line on stderr."""
    arguments = [argument for argument in argv if argument != "--debug"]
    if not arguments or {"--help", "-h"} & set(arguments):
        print((__doc__ or "").strip())
        return 0
    arguments = arguments[1:] if arguments[0] == "run" else arguments
    if not any(argument.partition("=")[0] in ("--model", "-M") for argument in arguments):
        arguments = ["--model", "imitation_jax", *arguments]
    try:
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        print("error: lm_eval is not installed; pip install 'imitation_jax[lm-eval]'", file=sys.stderr)
        return 1
    import imitation_jax.evaluation.lm_eval_model  # noqa: F401 makes the model known

    sys.argv = ["lm_eval", "run", *arguments]
    try:
        cli_evaluate()
    except Exception as error:
        if "--debug" in argv:
            raise
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
