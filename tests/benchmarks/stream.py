"""From the built dataset (tfds) to packed batches: tokens/s with an empty token cache and with a full one.

    python tests/benchmarks/stream.py --data=PREPARED --model=SmolLM2.gguf [--copies=4] [--workers=0,2]

The dataset is the dialogues of PREPARED (a folder that prepare wrote, or a dialogue file) several times over, built
anew. Tokens are those in the batches, padding apart. "Overall" counts from the call of Stream, so with an empty cache
it holds reading, tokenising, packing and all batches of an epoch; batches are only touched, not trained on. Worker
processes take seconds to start, which only many batches make up for.
"""

import argparse
import tempfile
import time

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import builder
from imitation_jax.data.input import token_cache
from imitation_jax.data.input.stream import Stream
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer

COLUMNS = (
    "| cache | workers | dialogues | tokens | first batch, s | tokens/s after it | tokens/s overall | padding | loss |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True, help="GGUF file of SmolLM2, for its tokenizer and chat template")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--seq_len", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args()

    tokenizer = load_tokenizer(args.model)
    template = load_template("model", tokenizer)
    dialogues = [row for _, row in token_cache.read(args.data) if not isinstance(row, Rejected)]
    texts = [template.render(dialogue["messages"]) for dialogue in dialogues]
    start = time.perf_counter()
    count = sum(map(len, tokenizer.encode_batch(texts)))
    rate = count / (time.perf_counter() - start)
    print(f"the tokenizer alone, on rendered texts: {rate:,.0f} tokens/s\n\n{COLUMNS}")
    print("|" + "---|" * (COLUMNS.count("|") - 1))
    with tempfile.TemporaryDirectory() as folder:
        repeated = (row | {"id": f"{row['id']} {copy}"} for copy in range(args.copies) for row in dialogues)
        builder.build(lambda: repeated, folder)
        for number, workers in enumerate(map(int, args.workers.split(","))):
            for cache in ("empty", "full"):
                start = time.perf_counter()
                stream = Stream(
                    folder,
                    tokenizer,
                    template,
                    seq_len=args.seq_len,
                    batch_size=args.batch_size,
                    seed=0,
                    epochs=1,
                    workers=workers,
                    cache_dir=f"{folder}/cache{number}",
                )
                batches = stream.iterator()
                found = [int((next(batches)["segment_ids"] > 0).sum())]
                first = time.perf_counter()
                found += [int((batch["segment_ids"] > 0).sum()) for batch in batches]
                end = time.perf_counter()
                stats, pairs = stream.stats, sum(found)
                assert pairs == stats["pairs"]
                print(
                    f"| {cache} | {workers} | {stats['dialogues']:,} | {pairs:,} | {first - start:.2f} "
                    f"| {sum(found[1:]) / (end - first):,.0f} | {pairs / (end - start):,.0f} "
                    f"| {stats['padding_share']:.2%} | {stats['loss_tokens'] / pairs:.1%} |"
                )


if __name__ == "__main__":
    main()
