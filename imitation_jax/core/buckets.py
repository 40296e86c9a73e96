"""Whether the buckets that a command was given can be reached."""

import re
import threading
from collections.abc import Iterable

from etils import epath

SECONDS = 15


def check_reachable(texts: Iterable[str]) -> None:
    """Looks once at every gs:// bucket that `texts` name: what hangs for minutes later fails here.

    Raises:
      TimeoutError, OSError: a bucket does not answer, or cannot be asked.
    """
    for bucket in sorted({bucket for text in texts for bucket in re.findall(r"gs://[^/,]+", text)}):
        answer: list[Exception | None] = []

        def ask(bucket: str = bucket, answer: list = answer) -> None:
            try:
                epath.Path(bucket).exists()
                answer.append(None)
            except Exception as error:
                answer.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(SECONDS)
        if not answer:
            raise TimeoutError(f"{bucket}: no answer within {SECONDS} s; check the network and the credentials")
        if isinstance(answer[0], ImportError):
            raise OSError(f"{bucket}: gs:// paths need gcsfs; pip install 'imitation_jax[tpu]'")
        if answer[0]:
            raise OSError(f"{bucket}: cannot be reached ({answer[0]}); check its name, the network and the credentials")
