// Tables sort by a click on a heading; without this they read as they stand.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b), p = parseFloat(x), q = parseFloat(y);
        if (column === 0) return x.localeCompare(y);
        if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q); // undefined stays below
        return p - q;
      });
      const known = rows.filter((row) => column === 0 || !isNaN(parseFloat(key(row))));
      const rest = rows.filter((row) => !known.includes(row));
      body.append(...(down && column ? known.reverse() : known), ...rest);
    });
  });
});
