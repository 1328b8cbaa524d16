"use strict";
// Texts in the order that people expect: basic-8 before basic-14, dropout 0.05 before 0.1.
const compareTexts = (a, b) => {
  const [x, y] = [a, b].map((text) => text.split(/(\d+(?:\.\d+)?)/));
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const order = i % 2 ? Number(x[i]) - Number(y[i]) : x[i].localeCompare(y[i], "en");
    if (order) return order;
  }
  return x.length - y.length;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[index].dataset.key;
    const number = (text) => ({ nan: NaN, inf: Infinity, "-inf": -Infinity })[text] ?? Number(text);
    const compare = (a, b) => {
      const [x, y] = [number(key(a)), number(key(b))];
      const unknown = [x, y].map((value) => Number.isNaN(value));
      if (unknown[0] && unknown[1]) return compareTexts(key(a), key(b)) * (descending ? -1 : 1);
      if (unknown[0] || unknown[1]) return unknown[0] - unknown[1];  // what is not known comes last, either way
      return x === y ? 0 : (x < y ? -1 : 1) * (descending ? -1 : 1);
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
const search = document.getElementById("search");
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const hides = (text) => words.some((word) => !text.toLowerCase().includes(word));
  for (const row of document.querySelectorAll("table.sortable tbody tr")) row.hidden = hides(row.textContent);
  for (const figure of document.querySelectorAll("figure[data-words]")) figure.hidden = hides(figure.dataset.words);
});
