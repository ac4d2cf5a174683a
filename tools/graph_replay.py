"""A CUDA program for ``bench_spool.py``: replays one CUDA graph of small kernels, and says how its own memory grew.

    python tools/graph_replay.py --nodes 33000000

Prints one JSON line at its end: nodes replayed, seconds, resident memory (MiB) after the first twentieth of the
replays, when every buffer that tracing needs has been used, and at the end, and free GPU memory (MiB) at both times.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def resident_mib() -> float:
    """Resident memory of this process without files and shared libraries, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Capture, replay, report."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=33_000_000, help="graph nodes to replay")
    parser.add_argument("--graph-nodes", type=int, default=440, help="kernels in the graph: an 8B model's decode step")
    parser.add_argument("--in-flight", type=int, default=2, help="replays queued at most: asynchronous engines queue 2")
    arguments = parser.parse_args()
    value = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    value.add_(0)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(arguments.graph_nodes):
            value.add_(1)
    replays, settled = arguments.nodes // arguments.graph_nodes, None
    events = [torch.cuda.Event() for _ in range(arguments.in_flight)]
    begin = time.monotonic()
    for replay in range(replays):
        event = events[replay % len(events)]
        event.synchronize()
        graph.replay()
        event.record()
        if replay == replays // 20:
            settled = _memory(torch)
    torch.cuda.synchronize()
    took_s = time.monotonic() - begin
    document = {
        "nodes": replays * arguments.graph_nodes,
        "seconds": took_s,
        "settled": settled,
        "end": _memory(torch),
    }
    print(json.dumps(document), flush=True)


def _memory(torch: object) -> dict[str, float]:
    free_bytes, _ = torch.cuda.mem_get_info()  # type: ignore[attr-defined]
    return {"resident_mib": resident_mib(), "gpu_free_mib": free_bytes / 2**20}


if __name__ == "__main__":
    main()
