// The Runs, and their table with its filters and its order.
//
// Uses: numbers.js, elements.js; chosen and choose of compare.js, openRun of detail.js.
// Gives: runs, byRunId, shared, settingsOf, where, fullName, publishedText, withInterval,
//   knownText, memoryText, valueText, collator to detail.js and compare.js; startRuns to page.js.

// As packed_runs.py packs them: values that many Runs share stand once, in the pool.
const data = JSON.parse(byId("data").textContent);
const runs = data.runs;
const shared = (run, name) => data.pool[run[name]];
const settingsOf = (run) => Object.fromEntries(
  Object.entries(run.settings).map(([name, number]) => [name, data.pool[number]]));

// Whichever Run comes first pays for the first two; not all Runs make the last two.
const OTHER_STAGES = ["data", "checkpoints", "unseen", "corrupted"];
const used = new Map();
for (const run of runs) {
  const times = (used.get(run.fingerprint) || 0) + 1; // a copied Run has the same one
  used.set(run.fingerprint, times);
  run.id = times > 1 ? `${run.fingerprint}-${times}` : run.fingerprint;
  const own = Object.entries(shared(run, "seconds"))
    .filter(([stage]) => !OTHER_STAGES.includes(stage));
  run.time = own.length ? own.reduce((sum, [, time]) => sum + time, 0) : null;
  run.perTask = isNumber(run.stored_bytes)
    ? run.stored_bytes / Object.keys(shared(run, "tasks")).length : null;
  const published = shared(run, "published");
  run.theirs = (published && published.figure) ? published : null;
}
const byRunId = new Map(runs.map((run) => [run.id, run]));
const where = (run) => `${run.backbone}, ${run.suite}, seed ${run.seed}`;
const fullName = (run) => `${run.label}, ${where(run)}`;

const publishedText = (theirs, name) => {
  const value = theirs.figure[name];
  if (!isNumber(value)) return NONE;
  const text = `${percent(value, theirs.figure.digits)} (${theirs.figure.origin})`;
  return theirs.comparable ? text : `[${text}]`;
};

const withInterval = (run) => run.interval
  ? `${percent(run.absolute)} \u00B1${percent((run.interval[1] - run.interval[0]) / 2)}`
  : percent(run.absolute);

const alphaText = (run) => run.alpha.toFixed(2) + (run.at_edge ? " edge" : "");
const knownText = (run) => ({ own: "yes", one: "no", routed: "router" })[run.served] || NONE;
const memoryText = (run) => (run.peak_memory ? (run.peak_memory / 1e9).toFixed(2) : NONE);
const valueText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

// sort: what a column is ordered by; text: what it shows, null in the column that heads the rows;
// wider: left out on narrow screens. Columns that no Run fills are left out.
const columns = [
  { head: "method", text: null, sort: (run) => run.label },
  { head: "backbone", text: (run) => run.backbone, sort: (run) => run.backbone, wider: true },
  { head: "suite", text: (run) => run.suite, sort: (run) => run.suite, wider: true },
  { head: "seed", text: (run) => String(run.seed), sort: (run) => run.seed, wider: true,
    number: true },
  { head: "absolute", text: withInterval, sort: (run) => run.absolute, number: true },
  { head: "normalized", text: (run) => percent(run.normalized), sort: (run) => run.normalized,
    number: true },
  { head: "unseen tasks", text: (run) => percent(run.unseen_mean),
    sort: (run) => run.unseen_mean, number: true },
  { head: "corrupted", text: (run) => percent(run.corrupted_mean),
    sort: (run) => run.corrupted_mean, number: true },
  { head: "published", text: (run) => run.theirs ? publishedText(run.theirs, "absolute") : NONE,
    sort: (run) => run.theirs ? run.theirs.figure.absolute : null, number: true },
  { head: "difference",
    text: (run) => signed(run.theirs ? run.theirs.differences.absolute : null),
    sort: (run) => run.theirs ? run.theirs.differences.absolute : null, number: true },
  { head: "alpha", text: alphaText, sort: (run) => run.alpha, number: true },
  { head: "MB a task", text: (run) => megabytes(run.perTask), sort: (run) => run.perTask,
    number: true },
  { head: "task known", text: knownText,
    sort: (run) => run.served === null ? null : knownText(run) },
  { head: "data", text: (run) => run.data_seen, sort: (run) => run.seen ? run.data_seen : null },
  { head: "seconds", text: (run) => seconds(run.time), sort: (run) => run.time, number: true },
  { head: "memory GB", text: memoryText, sort: (run) => run.peak_memory || null, number: true },
  { head: "made on", text: (run) => run.created.slice(0, 10), sort: (run) => run.created },
].filter(({ sort }) => runs.some((run) => sort(run) !== null && sort(run) !== undefined));

const order = { column: columns.find(({ head }) => head === "absolute"), descending: true };
const filters = byId("filters");
const FILTERED = ["backbone", "suite", "method", "seed"];
const collator = new Intl.Collator("en", { numeric: true });

const compareBy = ({ column, descending }) => (a, b) => {
  const [x, y] = [column.sort(a), column.sort(b)];
  const missing = [x, y].map((value) => value === null || value === undefined);
  if (missing[0] || missing[1]) return missing[0] - missing[1]; // last in both directions
  const difference = isNumber(x) ? x - y : collator.compare(x, y);
  return descending ? -difference : difference;
};

const classOf = ({ wider, number }) => `${wider ? "wider " : ""}${number ? "" : "text"}`;

const makeRow = (run) => {
  const tick = element("input", {
    type: "checkbox", "aria-label": `Compare ${fullName(run)}`, onchange: () => choose(run),
  });
  tick.checked = chosen.includes(run.id);
  const open = element("button", { type: "button", onclick: () => openRun(run) }, run.label);
  const name = element("div", { class: "name" }, tick,
    element("div", {}, open, element("span", { class: "where" }, where(run))));
  return element("tr", { "data-run": run.id }, columns.map((column) => column.text
    ? element("td", { class: classOf(column) }, column.text(run))
    : element("th", { scope: "row" }, name)));
};

const showHead = () => {
  const cells = columns.map((column) => {
    const direction = order.descending ? "descending" : "ascending";
    const sort = element("button", { type: "button", onclick: () => sortBy(column) }, column.head);
    return element("th", {
      scope: "col", "aria-sort": order.column === column ? direction : "none",
      class: classOf(column),
    }, sort);
  });
  byId("runs-table").tHead.replaceChildren(element("tr", {}, cells));
};

const sortBy = (column) => {
  order.descending = order.column === column ? !order.descending : Boolean(column.number);
  order.column = column;
  showRuns();
  byId("runs-table").tHead.querySelectorAll("button")[columns.indexOf(column)].focus();
};

const showRuns = () => {
  const wanted = FILTERED.map((name) => [name, filters.elements[name].value])
    .filter(([, value]) => value !== "");
  const shown = runs.filter((run) =>
    wanted.every(([name, value]) => String(run[name]) === value));
  shown.sort(compareBy(order));
  showHead();
  byId("runs-table").tBodies[0].replaceChildren(...shown.map(makeRow));
  byId("count").textContent = `${shown.length} of ${runs.length} Runs`
    + (shown.length ? "" : ": no Run fits all filters");
};

const startRuns = () => {
  for (const name of FILTERED) {
    const values = [...new Set(runs.map((run) => String(run[name])))].sort(collator.compare);
    const options = values.map((value) => [value, value]);
    fillOptions(filters.elements[name], [["", "all"], ...options], "");
  }
  filters.addEventListener("change", showRuns);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(showRuns)); // after the reset
  showRuns();
};
