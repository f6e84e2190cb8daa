"""From the last line that a scanner sends to the volume in the MRML scene, through the panel as a person uses it.

The sender is another process on loopback; views are paused, so that drawing is not in the time. In place of a peer
stands the goal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
from benchmarks.common import Row
from benchmarks.live_sender import STREAMS, Stream, head
from host.fixtures import running
from PySide6 import QtCore

#: Goals in seconds: a frame of a 2D stream (95th percentile), and a volume.
FRAME_S, VOLUME_S = 0.040, 8.0
#: Wait at most so long for a stream.
PATIENCE_S = 300.0


def end_to_end() -> list[Row]:
    """One row a stream."""
    return [_row(name, stream) for name, stream in STREAMS.items()]


def _row(name: str, stream: Stream) -> Row:
    seconds, error, cpu_s = _measured(name, stream)
    if stream.depth > 1:
        found, goal, what = seconds.max(), VOLUME_S, "8 coils 256 x 256 x 128"
    else:
        found, goal, what = float(np.percentile(seconds, 95)), FRAME_S, f"8 coils 256 x 256, p95 of {len(seconds)}"
    print(f"{name}: median {np.median(seconds):.4f} s, longest {seconds.max():.4f} s; {cpu_s:.2f} s of CPU here")
    work = f"last line sent -> volume in the scene, {name}, {what} (s; peer: the goal)"
    return Row(work, float(found), goal, goal / float(found), f"<= {goal:g} s", bool(found <= goal), error)


def _measured(name: str, stream: Stream) -> tuple[np.ndarray, float, float]:
    """(seconds of every frame, error of the last one against the noise-free head, CPU time of this process)."""
    import slicer

    app = running()
    slicer.util.selectModule("IntraopMRIReconstruction")
    panel = slicer.util.getModuleWidget("IntraopMRIReconstruction").panel
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Output")
    node.CreateDefaultDisplayNodes()
    panel.parameters.outputVolume = node
    results: list[Any] = []
    shown_s: list[float] = []

    def changed(*_: object) -> None:
        """The node changes more than once as it takes in a picture: the last time counts."""
        if results and results[-1] is panel.result:
            shown_s[-1] = time.monotonic()
        else:
            results.append(panel.result)
            shown_s.append(time.monotonic())

    node.AddObserver(node.ImageDataModifiedEvent, changed)
    slicer.app.pauseRender()
    command = [sys.executable, "-m", "benchmarks.live_sender", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as sender:
        assert sender.stdout is not None
        assert sender.stdin is not None
        panel.ui.source.currentIndex = 0
        panel.ui.port.value = json.loads(sender.stdout.readline())["port"]
        began_s = time.process_time()
        panel.ui.nextButton.click()
        end_s = time.monotonic() + PATIENCE_S
        while len(shown_s) < stream.frames:
            if time.monotonic() > end_s or panel.problem:
                raise SystemExit(f"{len(shown_s)} of {stream.frames} volumes came: {panel.problem}")
            # As Slicer waits: without letting go of the interpreter's lock.
            app.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        cpu_s = time.process_time() - began_s
        sent_s = [json.loads(sender.stdout.readline())["sent_s"] for _ in range(stream.frames)]
        panel.toggle()
        sender.stdin.write("\n")
        sender.stdin.flush()
    error = head(stream).error(slicer.util.arrayFromVolume(node))
    slicer.app.resumeRender()
    slicer.mrmlScene.Clear(0)
    app.processEvents()
    return np.array(shown_s[: stream.frames]) - np.array(sent_s), error, cpu_s
