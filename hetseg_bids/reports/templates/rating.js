// The rater's judgement, saved by the browser as JSON or as a one-row TSV.
{
  const form = document.getElementById("rating");
  const judgement = () => {
    const data = new FormData(form);
    return {
      scan: form.dataset.scan,
      rating: data.get("rating"),
      structures: data.getAll("structures"),
      comment: data.get("comment").trim(),
      rater: data.get("rater").trim(),
      verdict: form.dataset.verdict,
      source_sha256: form.dataset.source,
      model_sha256: form.dataset.model,
      rated: new Date().toISOString(),
    };
  };
  // spreadsheets run cells that begin so
  const cell = (text) => {
    const flat = String(text).replace(/\s+/g, " ");
    return /^[=+\-@]/.test(flat) ? "'" + flat : flat;
  };
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const stem = `${form.dataset.scan}_rating`;
  document.getElementById("save-json").addEventListener("click", () => {
    if (form.reportValidity()) save(`${stem}.json`, "application/json", JSON.stringify(judgement(), null, 2) + "\n");
  });
  document.getElementById("save-tsv").addEventListener("click", () => {
    if (!form.reportValidity()) return;
    const row = judgement();
    row.structures = row.structures.join(",");
    const lines = [Object.keys(row), Object.values(row).map((v) => cell(v) || "n/a")];
    save(`${stem}.tsv`, "text/tab-separated-values", lines.map((l) => l.join("\t")).join("\n") + "\n");
  });
}
