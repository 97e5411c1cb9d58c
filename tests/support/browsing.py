"""Looking at pages: their tags, what is drawn, and how they behave in Chromium."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from hetseg_bids.structures.aseg import STRUCTURES

_PATIENCE_MS = 120_000
HOSTILE = "\"'><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
HOSTILE_NAME = "x<img src=y onerror=window.hacked=1>\"'&amp;"  # of a file: no slash


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def drawn(page: str, number: int = 0) -> np.ndarray:
    """The grey values, 0-255, of a picture of the page, counted from the first."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)[number]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("L"), float)


def viewer_volume(page: str, name: str) -> np.ndarray:
    """A volume that the page's viewer shows, ``t1w`` or ``dseg``, as stored."""
    found = re.search(f'id="viewer-{name}">([^<]*)<', page)[1]
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(found))).dataobj)


def brightness(page: str, tissue: str) -> float:
    """Median of a tissue in the viewer: 0 is black, 1 is white."""
    counted = [i for i, s in enumerate(STRUCTURES, start=1) if s.bare_name == tissue]
    inside = np.isin(viewer_volume(page, "dseg"), counted)
    return float(np.median(viewer_volume(page, "t1w")[inside])) / 255


class Opened:
    """A page in the browser that notes complaints and requests."""

    def __init__(self, chromium: Any, path: Path, **options: Any) -> None:
        self.page = chromium.new_page(viewport={"width": 1280, "height": 900}, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self._metrics = self.page.context.new_cdp_session(self.page)
        self._metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(path.as_uri())

    def busy_seconds(self) -> float:
        """Processor time of the page's own thread: other programs' load doesn't count."""
        found = self._metrics.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in found if m["name"] == "TaskDuration"))

    def keep_picture(self, name: str) -> None:
        """Save a screenshot of the whole page where CI collects them."""
        folder = os.environ.get("HETSEG_SCREENSHOTS")
        if folder:
            # drawn by the processor, which other tests keep busy
            self.page.screenshot(
                path=Path(folder) / f"{name}.png", full_page=True, timeout=_PATIENCE_MS
            )
