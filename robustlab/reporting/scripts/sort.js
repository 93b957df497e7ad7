// Sortable tables: a click or Enter on a heading sorts the rows inside each tbody; the third time they are as they were.
// A row with data-fixed stays on top; a cell says what it is worth in data-value, else its text does.
{
  const worth = (row, at) => {
    const cell = row.cells[at];
    const text = cell.dataset.value ?? cell.textContent.trim();
    if (text === "") return null;
    return Number.isNaN(Number(text)) ? text : Number(text);
  };

  // Cells without a value come last in both directions.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  };

  document.querySelectorAll("table.sortable").forEach((table, number) => {
    const key = `sort${number || ""}`; // in the fragment
    const headings = [...table.tHead.rows[0].cells];
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);

    const sort = (at, order) => {
      for (const other of headings) other.removeAttribute("aria-sort");
      if (order !== "none") headings[at].setAttribute("aria-sort", order);
      for (const [body, rows] of bodies) {
        const moved = rows.filter((row) => !("fixed" in row.dataset));
        const sign = order === "ascending" ? 1 : -1;
        if (order !== "none") moved.sort((a, b) => compare(worth(a, at), worth(b, at), sign));
        body.append(...rows.filter((row) => "fixed" in row.dataset), ...moved);
      }
    };

    headings.forEach((heading, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        const order = next[heading.getAttribute("aria-sort") ?? "none"];
        sort(at, order);
        fragment.set({ [key]: order === "none" ? "" : `${at}.${order}` });
      });
    });
    fragment.follow((values) => {
      const [, at, order] = /^(\d\d?)\.(ascending|descending)$/.exec(values.get(key) ?? "") ?? [];
      if (headings[at]) sort(Number(at), order);
      else sort(0, "none");
    });
  });
}
