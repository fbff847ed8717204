"use strict";
// Tables sort by a click on a head; points of figures tell their values on a tap, or by the arrow keys.
const numberOf = cell => {
  if (cell.dataset.number) return parseFloat(cell.dataset.number);
  const found = cell.textContent.replace(/,/g, "").match(/-?\d+(\.\d+)?(e[-+]?\d+)?/);
  return found && /^[\s+<>~-]*[\d.]/.test(cell.textContent) ? parseFloat(found[0]) : NaN;
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const order = (a, b) => {
      const one = a.cells[head.cellIndex], two = b.cells[head.cellIndex], m = numberOf(one), n = numberOf(two);
      if (isNaN(m) !== isNaN(n)) return isNaN(m) ? 1 : -1;
      return (rising ? 1 : -1) * (isNaN(m) ? one.textContent.localeCompare(two.textContent) : m - n);
    };
    body.append(...[...body.rows].sort(order));
  });
}
const box = document.getElementById("value");
let chosen = null;
const tell = point => {
  if (chosen) chosen.classList.remove("chosen");
  chosen = point;
  box.hidden = !point;
  if (!point) return;
  point.classList.add("chosen");
  box.textContent = point.querySelector("title").textContent;
};
for (const svg of document.querySelectorAll("figure svg")) {
  const points = [...svg.querySelectorAll(".point")];
  svg.setAttribute("tabindex", "0");  // also without points, so that a wide figure can be scrolled by keys
  if (!points.length) continue;
  for (const point of points) {
    point.addEventListener("click", event => { event.stopPropagation(); tell(point); });
    point.addEventListener("mouseenter", () => tell(point));
    point.addEventListener("mouseleave", () => tell(null));
  }
  svg.addEventListener("focus", () => { if (!points.includes(chosen)) tell(points[0]); });
  svg.addEventListener("blur", () => tell(null));
  svg.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") tell(null);
    if (!step) return;
    event.preventDefault();
    tell(points[(points.indexOf(chosen) + step + points.length) % points.length]);
  });
}
document.addEventListener("click", event => { if (!event.target.closest(".point")) tell(null); });
