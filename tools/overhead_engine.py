"""A vLLM engine in a process of its own, for ``bench_overhead.py``: the other end of ``overhead_server.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Engine", "Load"]

SERVER: Final = Path(__file__).resolve().parent / "overhead_server.py"


@dataclass(frozen=True, slots=True)
class Load:
    """One run: ``batch`` requests at once."""

    batch: int
    input_len: int
    output_len: int


class Engine:
    """A vLLM engine in a process of its own."""

    def __init__(self, name: str, model: Path, environment: dict[str, str], *switches: str) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        command = f'exec "$0" "$@" 3<&{requests} 4>&{answers}'
        server = [sys.executable, str(SERVER), "--model", str(model), *switches]
        self.name = name
        self.log = Path(tempfile.gettempdir()) / f"qmeter-overhead-{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command, *server],
                env=environment,
                pass_fds=(requests, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(requests)
        os.close(answers)
        self._in = os.fdopen(self._answers)
        self._out = os.fdopen(self._requests, "w")

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        line = self._in.readline()
        if not line:
            raise SystemExit(f"engine {self.name} died; the end of its log:\n{self.log.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self._out.write(json.dumps(request) + "\n")
        self._out.flush()
        return self.answer()

    def run(self, load: Load) -> float:
        """Serve a load; mean TPOT in seconds."""
        answer = self.ask(op="run", batch=load.batch, input_len=load.input_len, output_len=load.output_len)
        return float(answer["tpot_s"])

    def close(self) -> None:
        """Let the engine end."""
        try:
            self._out.write('{"op": "quit"}\n')
            self._out.flush()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
