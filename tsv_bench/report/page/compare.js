// Two Runs side by side, image by image where both say which images they had right.
//
// Uses: numbers.js, elements.js, runs.js.
// Gives: chosen and choose to runs.js, startCompare to page.js.

const chosen = []; // ids of at most two Runs to compare
const pair = byId("pair");

// Tick a Run, or take its tick away.
const choose = (run) => {
  const index = chosen.indexOf(run.id);
  if (index >= 0) chosen.splice(index, 1);
  else chosen.push(run.id);
  if (chosen.length > 2) chosen.shift(); // the one ticked first
  showChoice();
};

const showChoice = () => {
  for (const row of byId("runs-table").tBodies[0].rows) {
    row.querySelector("input").checked = chosen.includes(row.dataset.run);
  }
  pair.elements.first.value = chosen[0] || "";
  pair.elements.second.value = chosen[1] || "";
  byId("swap").disabled = chosen.length < 2;
  const [first, second] = chosen.map((id) => byRunId.get(id));
  byId("compare").classList.toggle("screen", !second); // an empty one is not printed
  const invitation = "Choose two Runs, here or by the boxes before their names.";
  byId("comparison").replaceChildren(...(second
    ? compared(first, second) : [element("p", { class: "quiet" }, invitation)]));
};

// One object a task that both were evaluated on; paired counts only where the images are the same.
const pairTasks = (first, second) => {
  const [tests, images] =
    ["test", "data"].map((name) => [shared(first, name), shared(second, name)]);
  const tasks = shared(first, "tasks");
  return Object.keys(tasks).filter((task) => task in tests[1]).map((task) => {
    const [a, b] = tests.map((test) => test[task]);
    const same = a.total === b.total && images[0][task] === images[1][task];
    const isPaired = same && first.correct && second.correct;
    return {
      task, label: tasks[task], a: a.accuracy, b: b.accuracy, total: a.total, same,
      counts: isPaired
        ? countPairs(unpackBytes(first.correct[task]), unpackBytes(second.correct[task])) : null,
    };
  });
};

const differingKeys = (first, second) => {
  const names = new Set([...Object.keys(first.settings), ...Object.keys(second.settings)]);
  return [...names].filter((name) => first.settings[name] !== second.settings[name]);
};

// Column heads in the colours of the two Runs.
const makeHeads = () =>
  ["first", "second"].map((name) => element("span", { class: `key ${name}` }, name));

const sideBySide = (first, second) => {
  const knobs = new Set([first, second].flatMap((run) => Object.keys(shared(run, "knobs"))));
  const rows = [
    ["method", (run) => run.label],
    ["backbone, suite, seed", where],
    ["absolute", withInterval],
    ["normalized", (run) => percent(run.normalized)],
    ["alpha", (run) => run.alpha.toFixed(2)],
    ["task known", knownText],
    ["MB a task", (run) => megabytes(run.perTask)],
    ["seconds", (run) => seconds(run.time)],
    ["memory GB", memoryText],
    ["commit", (run) => run.commit],
    ["machine", (run) => run.machine],
    ...[...knobs].map((name) => [name, (run) => {
      const values = shared(run, "knobs");
      return name in values ? valueText(values[name]) : NONE;
    }]),
  ];
  const [firstHead, secondHead] = makeHeads();
  return makeTable("The two Runs", [
    { head: "", cell: ([name]) => name },
    { head: firstHead, kind: "wrap", cell: ([, text]) => text(first) },
    { head: secondHead, kind: "wrap", cell: ([, text]) => text(second) },
  ], rows);
};

// What keeps two Runs from being compared, or a reader from believing it.
const warnings = (first, second, pairs) => {
  const names = (items) => items.map(({ label }) => label).join(", ");
  const found = [];
  const lost = [first, second].filter((run) => !run.correct).map(fullName).join(" and of ");
  if (lost) found.push(`No paired counts: the per-image correctness of ${lost} is lost.`);
  const others = names(pairs.filter(({ same }) => !same));
  if (others) {
    found.push(`Not the same test ${first.unit}, hence not comparable one by one: ${others}.`);
  }
  const count = Math.max(...[first, second].map((run) => Object.keys(shared(run, "tasks")).length));
  if (pairs.length < count) {
    found.push(`Only ${pairs.length} of ${count} tasks are in both; the means above are of `
      + "different tasks.");
  }
  const [mine, theirs] = [first, second].map((run) => shared(run, "checkpoints"));
  const hash = (checkpoints, task) => (checkpoints[task] || {}).sha256;
  const differ = names(pairs.filter(({ task }) => hash(mine, task) !== hash(theirs, task)));
  if (differ) found.push(`Made from different fine-tuned checkpoints: ${differ}.`);
  return found.map((text) => element("p", { class: "warning" }, text));
};

// The last row of the table of tasks: the means, and the images of all tasks added up.
const meanOf = (pairs) => {
  const average = (value) => pairs.reduce((sum, item) => sum + value(item) / pairs.length, 0);
  const found = {
    label: `mean of ${pairs.length}`, a: average(({ a }) => a), b: average(({ b }) => b),
    isMean: true, counts: null, interval: null,
  };
  if (!pairs.every(({ counts }) => counts)) return found;
  const sum = (name) => pairs.reduce((total, { counts }) => total + counts[name], 0);
  found.counts = { onlyFirst: sum("onlyFirst"), onlySecond: sum("onlySecond") };
  found.interval = meanInterval(pairs.map(({ counts, total }) => ({ ...counts, total })));
  return found;
};

const intervalText = ({ counts, total, isMean, interval }) => {
  if (isMean) return interval ? `${bounds(interval, signed)} approximate` : NONE;
  if (!counts) return NONE;
  return bounds(pairedInterval(counts.onlyFirst, counts.onlySecond, total), signed);
};

const taskTable = (pairs) => {
  const [firstHead, secondHead] = makeHeads();
  const count = (name) => ({ counts }) => (counts ? String(counts[name]) : NONE);
  const largest = Math.max(0.01, ...pairs.map(({ a, b }) => Math.abs(a - b)));
  const better = ({ a, b, isMean }) => isMean ? "" : makeScale(-largest, largest, [
    { class: "line", at: 0 }, { class: a >= b ? "first" : "second", from: 0, to: a - b }]);
  return makeTable("Task by task", [
    { head: "task", cell: ({ label }) => label },
    { head: firstHead, kind: "number", cell: ({ a }) => percent(a) },
    { head: secondHead, kind: "number", cell: ({ b }) => percent(b) },
    { head: "difference", kind: "number", cell: ({ a, b }) => signed(a - b) },
    { head: "interval", kind: "number", cell: intervalText },
    { head: "only first right", kind: "number", cell: count("onlyFirst") },
    { head: "only second right", kind: "number", cell: count("onlySecond") },
    { head: "better", kind: "text", cell: better },
  ], pairs, meanOf(pairs));
};

// All elements of a comparison.
const compared = (first, second) => {
  const pairs = pairTasks(first, second);
  const quiet = (text) => element("p", { class: "quiet" }, text);
  const differing = differingKeys(first, second);
  const settings = differing.length
    ? `Settings that differ: ${differing.join(", ")}.` : "All settings are the same.";
  const parts = [sideBySide(first, second), ...warnings(first, second, pairs), quiet(settings)];
  if (!pairs.length) return [...parts, element("p", {}, "No task is in both.")];
  const explanation = `First minus second, in points. 95% intervals over ${first.unit}, paired, of `
    + "these two seeds alone: Bonett and Price's for a task; for the mean an approximate one, by the "
    + "normal distribution, where tsv-report compare=[...] takes a bootstrap. The last row adds "
    + `the ${first.unit} up.`;
  return [...parts, element("h3", {}, "Task by task"), taskTable(pairs), quiet(explanation)];
};

const startCompare = () => {
  const sorted = [...runs].sort((a, b) => collator.compare(fullName(a), fullName(b)));
  const options = sorted.map((run) => [run.id, `${fullName(run)} (${run.id.slice(0, 6)})`]);
  for (const name of ["first", "second"]) {
    fillOptions(pair.elements[name], [["", "choose"], ...options], "");
    pair.elements[name].addEventListener("change", () => {
      const ids = [pair.elements.first.value, pair.elements.second.value].filter(Boolean);
      chosen.splice(0, chosen.length, ...ids);
      showChoice();
    });
  }
  pair.addEventListener("submit", (event) => event.preventDefault());
  byId("swap").addEventListener("click", () => { chosen.reverse(); showChoice(); });
  showChoice();
};
