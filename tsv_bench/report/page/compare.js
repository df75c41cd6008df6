// Two Runs side by side, image by image where both say which images they had right.

const pair = byId("pair");

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
  byId("comparison").replaceChildren(...(second ? compared(first, second)
    : [element("p", { class: "quiet" }, "Choose two Runs, here or by the boxes before their names.")]));
};

// One object a task that both were evaluated on; paired counts only where the images are the same.
const pairTasks = (first, second) => {
  const [tests, images] = ["test", "data"].map((name) => [shared(first, name), shared(second, name)]);
  const tasks = shared(first, "tasks");
  return Object.keys(tasks).filter((task) => task in tests[1]).map((task) => {
    const [a, b] = tests.map((test) => test[task]);
    const same = a.total === b.total && images[0][task] === images[1][task];
    const found = { task, label: tasks[task], a: a.accuracy, b: b.accuracy, total: a.total, same, counts: null };
    if (same && first.correct && second.correct) {
      found.counts = countPairs(unpackBytes(first.correct[task]), unpackBytes(second.correct[task]));
    }
    return found;
  });
};

const differingKeys = (first, second) => {
  const [mine, theirs] = [settingsOf(first), settingsOf(second)];
  const names = [...new Set([...Object.keys(mine), ...Object.keys(theirs)])];
  return names.filter((name) => first.settings[name] !== second.settings[name]);
};

const sideBySide = (first, second) => {
  const [mine, theirs] = [shared(first, "knobs"), shared(second, "knobs")];
  const knobs = [...new Set([...Object.keys(mine), ...Object.keys(theirs)])];
  const rows = [
    ["method", (run) => run.label],
    ["backbone, suite, seed", where],
    ["absolute", withInterval],
    ["normalized", (run) => percent(run.normalized)],
    ["alpha", (run) => run.alpha.toFixed(2)],
    ["task known", knownText],
    ["MB a task", (run) => megabytes(run.perTask)],
    ["seconds", (run) => seconds(run.time)],
    ["memory GB", (run) => (run.peak_memory / 1e9).toFixed(2)],
    ["commit", (run) => run.commit],
    ["machine", (run) => run.machine],
    ...knobs.map((name) => [name, (run) => {
      const values = shared(run, "knobs");
      return name in values ? settled(values[name]) : NONE;
    }]),
  ];
  return makeTable("The two Runs", [
    { head: "", cell: ([name]) => name },
    { head: element("span", { class: "key first" }, "first"), kind: "wrap", cell: ([, text]) => text(first) },
    { head: element("span", { class: "key second" }, "second"), kind: "wrap", cell: ([, text]) => text(second) },
  ], rows);
};

const warnings = (first, second, pairs) => {
  const found = [];
  const lost = [first, second].filter((run) => !run.correct);
  if (lost.length) found.push(`No paired counts: the per-image correctness of ${lost.map(fullName).join(" and of ")} is lost.`);
  const others = pairs.filter(({ same }) => !same).map(({ label }) => label);
  if (others.length) found.push(`Not the same test images, hence not comparable image by image: ${others.join(", ")}.`);
  const count = Math.max(...[first, second].map((run) => Object.keys(shared(run, "tasks")).length));
  if (pairs.length < count) found.push(`Only ${pairs.length} of ${count} tasks are in both; the means above are of different tasks.`);
  const [mine, theirs] = [shared(first, "checkpoints"), shared(second, "checkpoints")];
  const differ = pairs.filter(({ task }) => (mine[task] || {}).sha256 !== (theirs[task] || {}).sha256);
  if (differ.length) found.push(`Made from different fine-tuned checkpoints: ${differ.map(({ label }) => label).join(", ")}.`);
  return found.map((text) => element("p", { class: "warning" }, text));
};

const compared = (first, second) => {
  const pairs = pairTasks(first, second);
  const parts = [sideBySide(first, second), ...warnings(first, second, pairs)];
  const differing = differingKeys(first, second);
  parts.push(element("p", { class: "quiet" }, differing.length
    ? `Settings that differ: ${differing.join(", ")}.` : "All settings are the same."));
  if (!pairs.length) return [...parts, element("p", {}, "No task is in both.")];
  const largest = Math.max(0.01, ...pairs.map(({ a, b }) => Math.abs(a - b)));
  const counted = pairs.filter(({ counts }) => counts);
  const complete = counted.length === pairs.length;
  const mean = complete
    ? meanDifference(pairs.map(({ counts, total }) => ({ ...counts, total })))
    : { mean: pairs.reduce((sum, { a, b }) => sum + (a - b) / pairs.length, 0), interval: null };
  const average = (name) => pairs.reduce((sum, item) => sum + item[name] / pairs.length, 0);
  const sum = (name) => (complete ? pairs.reduce((total, { counts }) => total + counts[name], 0) : null);
  const total = {
    label: `mean of ${pairs.length}`, a: average("a"), b: average("b"), total: 1, mean,
    counts: complete ? { onlyFirst: sum("onlyFirst"), onlySecond: sum("onlySecond") } : null,
  };
  const interval = ({ counts, total, mean: known }) => {
    const found = known ? known.interval : counts && pairedInterval(counts.onlyFirst, counts.onlySecond, total);
    return found ? bounds(found, signed) : NONE;
  };
  parts.push(element("h3", {}, "Task by task"), makeTable("Task by task", [
    { head: "task", cell: ({ label }) => label },
    { head: element("span", { class: "key first" }, "first"), kind: "number", cell: ({ a }) => percent(a) },
    { head: element("span", { class: "key second" }, "second"), kind: "number", cell: ({ b }) => percent(b) },
    { head: "difference", kind: "number", cell: ({ a, b }) => signed(a - b) },
    { head: "interval", kind: "number", cell: interval },
    { head: "only first right", kind: "number", cell: ({ counts }) => (counts ? String(counts.onlyFirst) : NONE) },
    { head: "only second right", kind: "number", cell: ({ counts }) => (counts ? String(counts.onlySecond) : NONE) },
    { head: "better", kind: "text", cell: ({ a, b, mean: known }) => known ? "" : makeScale(-largest, largest, [
      { class: "line", at: 0 }, { class: a >= b ? "first" : "second", from: 0, to: a - b }]) },
  ], pairs, total));
  parts.push(element("p", { class: "quiet" },
    "First minus second, in points. Intervals are paired: Bonett and Price's for a task, the normal "
    + "approximation for the mean, over images, of these two seeds alone. The last row adds the images up."));
  return parts;
};

const startCompare = () => {
  const sorted = [...runs].sort((a, b) => collator.compare(fullName(a), fullName(b)));
  const options = [["", "choose"], ...sorted.map((run) => [run.id, `${fullName(run)} (${run.id.slice(0, 6)})`])];
  for (const name of ["first", "second"]) {
    fillOptions(pair.elements[name], options, "");
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
