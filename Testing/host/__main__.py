"""``make app``: the modules in a window for a person; without a screen, pictures of that window."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import application
from .fixtures import FOLDERS

SIZE = (1280, 800)


def has_screen() -> bool:
    """Whether a window can be shown."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> int:
    """Run until the window is closed, or write pictures to build/app."""
    app = application.start(FOLDERS, screen=has_screen())
    import slicer

    window = slicer.util.mainWindow()
    window.resize(*SIZE)
    slicer.util.selectModule("IntraopMRI")
    if has_screen():
        status = int(app.exec())
    else:
        folder = Path("build/app")
        folder.mkdir(parents=True, exist_ok=True)
        for name in app.moduleManager().modulesNames():
            slicer.util.selectModule(name)
            for _ in range(20):
                app.processEvents()
            window.grab().save(str(folder / f"{name}.png"))
        print(f"There is no screen: pictures of the window are in {folder}/")
        status = 0
    app.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
