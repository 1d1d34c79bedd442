"use strict";

// ---- tables: a click on a head sorts by it, up, down and back; the box above keeps rows that contain its words

function valueOf(cell) {
  const text = cell.textContent.trim();
  const clock = /^\d+(:\d\d)+$/.test(text); // 1:02:03 in seconds
  const number = clock ? text.split(":").reduce((sum, part) => 60 * sum + Number(part), 0) : NaN;
  return { text, number: clock ? number : parseFloat(cell.dataset.v ?? text) };
}

function compare(numeric, sign) {
  return (a, b) => {
    if (!numeric) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
    return sign * (a.number - b.number);
  };
}

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const next = { null: "ascending", ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      for (const other of heads) other.removeAttribute("aria-sort");
      let rows = original;
      if (next) {
        head.setAttribute("aria-sort", next);
        const order = compare(head.classList.contains("n"), next === "ascending" ? 1 : -1);
        const keyed = original.map((row) => [valueOf(row.cells[column]), row]);
        rows = keyed.sort((a, b) => order(a[0], b[0])).map((pair) => pair[1]);
      }
      body.append(...rows);
    });
  });
}

for (const box of document.querySelectorAll(".filter input")) {
  const rows = [...box.closest(".table").querySelectorAll("tbody tr")];
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// ---- tips: what a point, a cell or a sign stands for, on pointing at it or touching it

const tip = document.getElementById("tip");

function place(event) {
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - box.width - 8);
  const above = event.clientY - box.height - 12;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 8 ? above : event.clientY + 16}px`;
}

document.addEventListener("pointerover", (event) => {
  const from = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = !from;
  if (!from) return;
  tip.textContent = from.dataset.tip;
  place(event);
});
document.addEventListener("pointermove", (event) => { if (!tip.hidden) place(event); });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// ---- on a phone the contents begin closed

if (window.matchMedia("(max-width: 1099px)").matches) document.querySelector(".contents").open = false;
