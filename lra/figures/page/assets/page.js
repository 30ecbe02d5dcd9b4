// Glue: DataTables sorts and searches, Plotly draws, <dialog> shows what is behind a row.
const data = JSON.parse(document.getElementById("data").textContent);
const DataTable = globalThis.DataTable;
const dialog = document.getElementById("detail");
const tables = {};
let shown = null;
const TIME = 0, OPERATIONS = 2; // places among the costs of a point
// Okabe and Ito (2008), darker or lighter as the background needs it.
const COLOURS = {
  light: ["#0072B2", "#D55E00", "#009E73", "#AA4499", "#8C6D00", "#3A8FC4", "#444444"],
  dark: ["#56B4E9", "#E69F00", "#2CC59B", "#E58FC0", "#F0E442", "#FF8A4C", "#B9C0C8"],
};

function colours() {
  return COLOURS[document.documentElement.classList.contains("dark") ? "dark" : "light"];
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function plain(text) { // Plotly reads a few tags in its texts
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
}

function draw(host, title, traces, xaxis, yaxis, legend = { orientation: "h", y: -0.22 }) {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);
  const place = host.appendChild(element("div"));
  place.className = "plot";
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${title}; the numbers are in the table and behind its rows`);
  const axis = { gridcolor: colour("--line"), linecolor: colour("--soft"), zeroline: false, automargin: true };
  const layout = {
    title: { text: plain(title), font: { size: 14 }, x: 0, xref: "paper" }, margin: { l: 50, r: 56, t: 36, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 12 },
    colorway: colours(),
    hovermode: "closest", showlegend: traces.filter(trace => trace.showlegend !== false).length > 1,
    legend,
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
  };
  Plotly.newPlot(place, traces, layout, { displaylogo: false, responsive: true, displayModeBar: false });
  return place;
}

function fill(section, make) {
  const host = section.querySelector(".plots");
  host.querySelectorAll(".plot").forEach(plot => Plotly.purge(plot));
  host.replaceChildren();
  make(host);
  fit(host);
}

function fit(host) { // once all plots share the width
  host.querySelectorAll(".plot").forEach(plot => Plotly.Plots.resize(plot));
}

function chosenPoints() {
  const rows = tables.measured ? tables.measured.rows({ search: "applied" }).nodes().toArray() : [];
  return rows.map(row => ({ key: row.dataset.key, ...data.points[row.dataset.key] })).filter(point => point.name);
}

function front(points, cost) {
  let best = -Infinity;
  return [...points].sort((a, b) => a.costs[cost] - b.costs[cost] || b.accuracy - a.accuracy)
    .filter(point => point.accuracy > best && (best = point.accuracy, true));
}

function drawPareto() {
  const select = document.getElementById("cost");
  const chosen = chosenPoints();
  const priced = index => chosen.filter(point => point.costs[index] !== null);
  const asked = Number(select.value);
  const cost = asked === TIME && chosen.length && priced(TIME).length <= chosen.length / 2 ? OPERATIONS : asked;
  const points = priced(cost);
  const section = document.getElementById("pareto");
  fill(section, host => {
    if (cost !== asked) host.append(element("p", `No times: those of ${chosen.length - priced(TIME).length} of ${chosen.length} rows do not count (*). Shown instead: operations of training.`));
    else if (points.length < chosen.length) host.append(element("p", `${chosen.length - points.length} of ${chosen.length} rows are left out: they have none of this that counts.`));
    if (!points.length) host.append(element("p", "None of the rows chosen above has this cost."));
    for (const [task, here] of Map.groupBy(points, point => point.task)) {
      const traces = [];
      const places = Map.groupBy(here, point => point.place.join(" · "));
      for (const [place, group] of places) {
        const edge = front(group, cost);
        const color = colours()[(traces.length / 2) % colours().length];
        const name = plain(group[0].place.slice(1, 3).join(", "));
        traces.push({
          x: group.map(point => point.costs[cost]), y: group.map(point => point.accuracy), name,
          // Of many points only those of the front are named; the others are when pointed at.
          text: group.map(point => here.length <= 8 || edge.includes(point) ? plain(point.name) : ""),
          customdata: group.map(point => [point.key, plain(point.name)]), type: "scatter",
          mode: "markers+text", textposition: "top right", marker: { size: 9, color },
          cliponaxis: false, legendgroup: place,
          error_y: {
            type: "data", symmetric: false, thickness: 1, width: 3, color,
            array: group.map(point => point.high - point.accuracy),
            arrayminus: group.map(point => point.accuracy - point.low),
          },
          hovertemplate: `<b>%{customdata[1]}</b><br>%{y:.1f} %<br>%{x:,.4~g}<br>${plain(place)}<extra></extra>`,
        }, {
          x: edge.map(point => point.costs[cost]), y: edge.map(point => point.accuracy), mode: "lines", type: "scatter",
          line: { color, dash: "dot", width: 1.5, shape: "hv" }, hoverinfo: "skip", showlegend: false, legendgroup: place,
        });
      }
      const title = select.options[cost].textContent;
      draw(host, task, traces, { title: { text: title }, rangemode: "tozero" }, { title: { text: "test accuracy, %" } })
        .on("plotly_click", event => event.points[0].customdata && open(event.points[0].customdata[0]));
    }
  });
}

function drawScaling() {
  const section = document.getElementById("scaling");
  fill(section, host => {
    if (!data.scaling.length) host.append(element("p", "Not measured yet."));
    const family = document.getElementById("family").value;
    const grey = getComputedStyle(document.documentElement).getPropertyValue("--soft");
    for (const [machine, lines] of Map.groupBy(data.scaling, line => line.machine)) {
      const lengths = [...new Set(lines.flatMap(line => line.n))];
      const chosen = lines.filter(line => line.reference || line.family === family)
        .sort((a, b) => Boolean(b.reference) - Boolean(a.reference));
      for (const [field, title] of [["ms", "ms"], ["mib", "MiB"]]) {
        const traces = chosen.map(line => ({
          x: line.n, y: line[field], name: plain(line.reference || line.name), type: "scatter", mode: "lines+markers",
          ...(line.reference ? { opacity: 0.55, line: { color: grey, dash: line.reference.startsWith("fused") ? "solid" : "dot" } } : {}),
          hovertemplate: `<b>${plain(line.name)}</b><br>length %{x:,}<br>%{y:,.4~g} ${title}<extra></extra>`,
        }));
        draw(host, `${title}, ${machine}`, traces, { type: "log", title: { text: "length" }, tickmode: "array", tickvals: lengths, tickformat: "," },
          { type: "log", title: { text: title }, dtick: 1 }, { orientation: "v", x: 1.02, y: 1 });
      }
    }
  });
}

function definitions(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs)
    if (value !== null && value !== undefined && value !== "") list.append(element("dt", name), element("dd", value));
  return list;
}

function folded(title, value) {
  return element("details", null, element("summary", title), element("pre", JSON.stringify(value, null, 2)));
}

function showRun(host, key) {
  const run = data.runs[key];
  const number = (value, factor, digits) => value === null ? "" : (value * factor).toLocaleString("en", { maximumFractionDigits: digits });
  host.replaceChildren(
    definitions([
      ["Status", run.status], ["Test accuracy", run.accuracy === null ? "" : `${(100 * run.accuracy).toFixed(1)} %, ${run.tested} weights`],
      ["Steps", number(run.steps, 1, 0)], ["Best step", number(run.best_step, 1, 0)],
      ["Training", run.train_seconds === null ? "" : `${number(run.train_seconds, 1, 1)} s, ${number(run.ms_per_step, 1, 1)} ms a step`],
      ["Peak memory", run.peak_memory_bytes === null ? "" : `${number(run.peak_memory_bytes, 2 ** -20, 0)} MiB`],
      ["Parameters", number(run.num_params, 1, 0)], ["Machine", run.environment.device_name],
      ["Date, commit", [run.date, run.commit].filter(Boolean).join(", ")], ["Key", key],
    ]),
    element("h3", "Repeat it"), element("pre", run.command || "The command was not recorded."),
  );
  if (run.error) host.append(element("h3", "Error"), element("pre", run.error));
  host.append(element("h3", "Learning curve"));
  if (run.curve) {
    const plots = host.appendChild(element("div"));
    plots.className = "plots";
    for (const [what, factor, unit] of [["accuracy", 100, "%"], ["loss", 1, "nats"]]) {
      const traces = ["train", "val"].map(part => ({
        x: run.curve.step, y: run.curve[`${part}_${what}`].map(value => value === null ? null : factor * value), name: part,
        type: "scatter", mode: "lines+markers", hovertemplate: `step %{x:,}<br>%{y:.4~g} ${unit}<extra>${part}</extra>`,
      }));
      draw(plots, `${what}, ${unit}`, traces, { title: { text: "step" } }, {});
    }
    fit(plots);
  } else host.append(element("p", "None was collected with this record."));
  host.append(folded("Configuration", run.config), folded("Environment", run.environment));
}

function open(key) {
  const detail = data.details[key];
  const body = document.getElementById("detail-body");
  document.getElementById("detail-title").textContent = detail.title;
  body.replaceChildren(definitions(detail.facts));
  for (const command of detail.commands || []) body.append(element("pre", command));
  shown = key;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (!detail.runs.length) return;
  const select = element("select", null, ...detail.runs.map(run => new Option(`seed ${data.runs[run].seed}: ${data.runs[run].status}`, run)));
  const host = element("div");
  select.addEventListener("change", () => showRun(host, select.value));
  body.append(element("h3", "Run"), element("label", "Of ", select), host);
  showRun(host, select.value);
}

function notice() {
  const kind = document.querySelector("#kind input:checked").value;
  document.querySelectorAll("[data-of]").forEach(part => { part.hidden = part.dataset.of !== kind; });
  document.querySelectorAll(".panel").forEach(part => { part.hidden = part.id !== kind; });
  const select = document.querySelector("#measured select[data-name=scale]");
  const scale = select ? select.value : "";
  document.getElementById("notice").textContent = kind === "published"
    ? "As printed in papers, at the published size. Nothing measured here stands in this table."
    : scale === "full" ? "scale=full: the published size. Published accuracies stand in a column of their own."
      : `scale=${scale}: not the published size. These numbers are not comparable with published ones.`;
}

function missingLast(direction) {
  return (a, b) => {
    if (a === "" || b === "") return Number(a === "") - Number(b === "");
    const difference = Number(a) - Number(b);
    return direction * (Number.isNaN(difference) ? String(a).localeCompare(String(b), "en") : difference);
  };
}

function prepare(panel) {
  const table = panel.querySelector("table");
  if (!table) return;
  const columns = [...table.querySelectorAll("thead th")].map(head => head.dataset.name);
  const api = tables[panel.id] = new DataTable(table, {
    // Without a column to begin with, the rows stand as they came: in the order of tables and figures.
    order: table.dataset.best ? [[Number(table.dataset.task), "asc"], [Number(table.dataset.best), "desc"]] : [],
    columnDefs: [{ targets: "_all", type: "missing-last" }], autoWidth: false, pageLength: 50,
    layout: { topStart: "info", topEnd: "search", bottomStart: "pageLength", bottomEnd: "paging" },
  });
  const scroller = table.parentElement; // DataTables lets it scroll sideways; so a keyboard can, too
  Object.assign(scroller, { tabIndex: 0, role: "region", ariaLabel: `table of ${panel.id} numbers` });
  const filter = select => {
    api.column(Number(select.dataset.column)).search.fixed("choice", text => !select.value || text === select.value);
    if (select.dataset.name === "scale") api.column(columns.indexOf("paper")).visible(select.value === "full");
    api.draw();
  };
  panel.querySelectorAll("select[data-column]").forEach(select => {
    select.addEventListener("change", () => { filter(select); notice(); });
    filter(select);
  });
  table.tBodies[0].addEventListener("click", event => {
    const row = event.target.closest("tr[data-key]");
    if (row) open(row.dataset.key);
  });
  if (panel.id === "measured") api.on("draw", drawPareto);
}

function dress(dark) {
  document.documentElement.classList.toggle("dark", dark);
  document.getElementById("theme").setAttribute("aria-pressed", dark);
  drawPareto();
  drawScaling();
  if (dialog.open) open(shown);
}

DataTable.type("missing-last", { order: { asc: missingLast(1), desc: missingLast(-1) } });
document.getElementById("family").append(...data.families.map(name => new Option(name)));
document.querySelectorAll(".panel").forEach(prepare);
document.getElementById("kind").addEventListener("change", notice);
document.getElementById("cost").addEventListener("change", drawPareto);
document.getElementById("family").addEventListener("change", drawScaling);
document.getElementById("theme").addEventListener("click", () => dress(!document.documentElement.classList.contains("dark")));
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
notice();
const preferred = matchMedia("(prefers-color-scheme: dark)");
preferred.addEventListener("change", event => dress(event.matches));
dress(preferred.matches);
document.documentElement.dataset.ready = "yes";
