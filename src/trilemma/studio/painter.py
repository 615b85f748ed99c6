"""The server's side of the process that holds a model for the sliders: started when needed, ended when it rests."""

import json
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.studio.processes import start

LONGEST_S = 120.0  # seconds for an answer: the first has to load torch, the model and the images
RESTS_S = 300.0  # seconds without a request, after which its memory is given back


class Painter:
    """Images of codes, from a process of its own.

    Args:
        folder: in which the runs lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._rest: threading.Timer | None = None

    def axes(self, run: str, how: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The axes of a run, and what else its page shows.

        Args:
            how: arguments of `sliders_of`.
        Raises:
            UserError: its model has no codes to move, `how` does not fit, or the process ended.
        """
        return self._ask({"run": run, "how": how or {}})[0]

    def picture(
        self,
        run: str,
        values: Mapping[int, float],
        how: Mapping[str, str] | None = None,
        styles: Mapping[str, float] | None = None,
    ) -> bytes:
        """The PNG of the code with these values, of styles as the keys of the sampler say; errors as `axes`."""
        moved = {str(unit): value for unit, value in values.items()}
        return self._ask({"run": run, "how": how or {}, "values": moved, "styles": styles})[1]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if self._rest is not None:
            self._rest.cancel()
        if process is not None:
            process.kill()
            process.wait()

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._turn:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            limit = threading.Timer(LONGEST_S, process.kill)
            limit.start()
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                head = json.loads(process.stdout.readline())
                content = process.stdout.read(head.get("bytes", 0))
            except (OSError, ValueError):
                self.close()
                raise UserError("the process that draws has ended; try again, or see `trilemma traverse`") from None
            finally:
                limit.cancel()
        if "error" in head:
            raise UserError(head["error"])
        return head, content

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, which ends by itself when nothing is asked for a while."""
        if self._process is None or self._process.poll() is not None:
            self._process = start("slider_worker", folder=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._rest is not None:
            self._rest.cancel()
        self._rest = threading.Timer(RESTS_S, self._end_if_idle)
        self._rest.daemon = True
        self._rest.start()
        return self._process

    def _end_if_idle(self) -> None:
        if self._turn.acquire(blocking=False):
            self.close()
            self._turn.release()
