// Downloads: what is embedded in the page is saved as a file, by the browser alone.
{
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell);

  // A run's columns as lines. Predictions and confidences of an attack are stored for the attempted samples only, in order.
  const asLines = ({ id, label, models, outcomes }) => {
    const columns = [["id", id], ["label", label]];
    for (const model of models) {
      columns.push([`${model.name} clean_prediction`, model.prediction], [`${model.name} clean_confidence`, model.confidence]);
      for (const attack of model.attacks) {
        const spread = (values) => {
          let next = 0;
          return [...attack.outcome].map((code) => (code === "-" ? null : values[next++]));
        };
        const name = `${model.name} ${attack.name}`;
        columns.push([`${name} outcome`, [...attack.outcome].map((code) => outcomes[code])]);
        columns.push([`${name} prediction`, spread(attack.prediction)], [`${name} confidence`, spread(attack.confidence)]);
      }
    }
    const rows = [columns.map(([name]) => name), ...id.map((_, at) => columns.map(([, values]) => values[at] ?? ""))];
    return rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
  };

  for (const button of document.querySelectorAll("button[data-save]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const stored = document.getElementById(button.dataset.save).textContent;
      if (button.dataset.as === "columns") save(button.dataset.file, "text/csv", asLines(JSON.parse(stored)));
      else if (button.dataset.as === "text") save(button.dataset.file, "text/csv", JSON.parse(stored));
      else save(button.dataset.file, "application/json", stored);
    });
  }
}
