"""What axe-core finds of a page in headless Chromium: what people who hear a page or see it badly stumble over."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
RUN = """
<script>
addEventListener("load", async () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const out = document.createElement("pre");
  out.id = "axeout";
  out.textContent = JSON.stringify(found.violations.map(
    one => ({id: one.id, impact: one.impact, help: one.help, nodes: one.nodes.slice(0, 3).map(node => node.html)})));
  document.body.append(out);
});
</script>
"""


def violations(page: str, folder: Path, dark: bool = False) -> list[str]:
    """Returns what is serious or critical of a page, each with the first elements that have it.

    A light page is looked at on a screen, a dark one on a phone.
    """
    import axe_core_python

    script = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    path = folder / "axe.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script>{RUN}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    scheme = [f"--blink-settings=preferredColorScheme={int(not dark)}", f"--window-size={500 if dark else 1280},900"]
    done = subprocess.run(["chromium", *options, *scheme, path.as_uri()], capture_output=True, text=True, timeout=600)
    out = re.findall('<pre id="axeout">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, f"axe said nothing: {done.stderr[-1000:]}"
    found = json.loads(html.unescape(out[-1]))
    return [f"{one['id']}: {one['help']}: {one['nodes']}" for one in found if one["impact"] in ("serious", "critical")]
