// All that is known of one Run.
//
// Uses: numbers.js, elements.js, runs.js.
// Gives: openRun to runs.js, showDetail to page.js.

// The columns of the table of tasks; those that this Run has nothing for are left out.
const taskColumns = (run) => {
  const [tasks, test, val, normalizer, variants, knobs, router] =
    ["tasks", "test", "val", "normalizer", "variants", "task_knobs", "router"]
      .map((name) => shared(run, name));
  const edges = shared(run, "knobs_at_edge");
  const theirs = run.theirs ? run.theirs.tasks : {};
  const any = (values) => Object.keys(tasks).some((task) => values[task]);
  const lowest = Math.min(...Object.keys(tasks).map((task) => test[task].interval[0]));
  const low = Math.max(0, Math.floor(10 * lowest) / 10);
  const ours = (task) => test[task].accuracy;
  return [
    { head: "task", cell: (task) => tasks[task] },
    { head: "accuracy", kind: "number", cell: (task) => percent(ours(task)) },
    { head: "interval", kind: "number", cell: (task) => bounds(test[task].interval) },
    { head: `${percent(low, 0)} to 100`, kind: "text", cell: (task) => {
      const [from, to] = test[task].interval;
      return makeScale(low, 1, [
        { class: "first", from, to },
        { class: "dot", at: ours(task) },
        ...(isNumber(normalizer[task]) ? [{ class: "line", at: normalizer[task] }] : []),
      ]);
    } },
    { head: "right", kind: "number",
      cell: (task) => `${test[task].correct} / ${test[task].total}` },
    { head: "individual", kind: "number", cell: (task) => percent(normalizer[task]) },
    { head: "normalized", kind: "number",
      cell: (task) => percent(normalizer[task] ? ours(task) / normalizer[task] : null) },
    any(theirs) && { head: "published", kind: "number", cell: (task) =>
      run.theirs.comparable ? percent(theirs[task], 2) : `[${percent(theirs[task], 2)}]` },
    any(theirs) && run.theirs.comparable && { head: "difference", kind: "number",
      cell: (task) => signed(isNumber(theirs[task]) ? ours(task) - theirs[task] : null) },
    any(val) && { head: "validation", kind: "number",
      cell: (task) => percent(val[task] ? val[task].accuracy : null) },
    any(knobs) && { head: "chosen for it", kind: "text",
      cell: (task) => knobs[task]
        ? valueText(knobs[task]) + (edges[task].length ? ` edge: ${edges[task].join(", ")}` : "")
        : "" },
    router && { head: "router finds it", kind: "number",
      cell: (task) => percent(router.found[task].accuracy) },
    router && { head: "oracle router", kind: "number",
      cell: (task) => percent(router.oracle[task].accuracy) },
    router && { head: "head found too", kind: "number",
      cell: (task) => percent(router.head_found[task].accuracy) },
    any(variants) && { head: "not the default", kind: "wrap",
      cell: (task) => variants[task] || "" },
  ].filter(Boolean);
};

const publishedFacts = (run) => {
  if (!run.theirs) return [];
  const { figure, ours, comparable } = run.theirs;
  const difference = comparable
    ? "" : `; ours is of ${ours} checkpoints, so no difference is taken`;
  return [
    ["published absolute", `${publishedText(run.theirs, "absolute")}${difference}`],
    ["difference", comparable ? signed(run.theirs.differences.absolute) : null],
    ["published normalized", publishedText(run.theirs, "normalized")],
    ["source", figure.source],
  ];
};

const facts = (run) => {
  const alphas = shared(run, "alpha_curve").length;
  const edge = run.at_edge ? ", at their edge: a better one may lie beyond" : "";
  const stages = Object.entries(shared(run, "seconds"))
    .map(([stage, time]) => `${stage} ${time.toFixed(2)}`);
  const interval = run.interval
    ? ` ${bounds(run.interval)} over ${run.unit}` : ", no interval: the per-image correctness is lost";
  const stored = `${megabytes(run.stored_bytes)} MB beside the pretrained backbone, `
    + `${megabytes(run.perTask)} a task`;
  const inference = { own: "the task must be known", one: "one model for all tasks",
    routed: "a router chooses experts for each image; the head of the task is known" };
  return makeList([
    ["absolute", `${percent(run.absolute, 2)}${interval}`],
    ["normalized", isNumber(run.normalized)
      ? `${percent(run.normalized, 2)} by ${run.normalizer_source}` : null],
    ...publishedFacts(run),
    ["alpha", `${run.alpha} ${alphas ? `of ${alphas} candidates${edge}` : "(fixed)"}`],
    ["inference", inference[run.served] || null],
    ["data seen", run.seen ? `${run.data_seen}, ${run.seen.forward_passes} forward and `
      + `${run.seen.backward_passes} backward passes, ${run.seen.seconds.toFixed(1)} s`
      : "no images but those by which alpha is chosen"],
    ["stored", isNumber(run.stored_bytes) ? stored : null],
    ["seconds", stages.join(", ") || null],
    ["peak memory", run.peak_memory ? `${memoryText(run)} GB` : null],
    ["made", `${run.created} on ${run.machine}`],
    ["commit", run.commit],
    ["fingerprint", run.fingerprint],
  ]);
};

const checkpointTable = (run) => {
  const [tasks, checkpoints, images] =
    ["tasks", "checkpoints", "data"].map((name) => shared(run, name));
  return makeTable("Checkpoints and data", [
    { head: "of", cell: (name) => tasks[name] || name },
    { head: "generation", kind: "text", cell: (name) => checkpoints[name].generation || "unknown" },
    { head: "sha256", kind: "text",
      cell: (name) => element("code", {}, checkpoints[name].sha256 || "unknown") },
    { head: "data", kind: "text", cell: (name) => element("code", {}, images[name] || "") },
  ], Object.keys(checkpoints));
};

const alphaTable = (run) => makeTable("Alpha curve", [
  { head: "alpha", cell: (point) => point.alpha.toFixed(3) },
  { head: "normalized, validation", kind: "number", cell: (point) => percent(point.normalized, 2) },
], shared(run, "alpha_curve"));

// Tables of unseen tasks and of corrupted images, where the Run has some.
const beyond = (run) => {
  const [unseen, corrupted] = [shared(run, "unseen"), shared(run, "corrupted")];
  const mean = (scores) => Object.values(scores)
    .reduce((sum, { accuracy }) => sum + accuracy, 0) / Object.keys(scores).length;
  return [
    unseen && element("h3", {}, `Unseen tasks: ${percent(unseen.absolute, 2)} absolute, `
      + `${percent(unseen.normalized, 2)} normalized`),
    unseen && makeTable("Unseen tasks", [
      { head: "task", cell: (task) => unseen.tasks[task] },
      { head: "accuracy", kind: "number", cell: (task) => percent(unseen.test[task].accuracy) },
      { head: "individual", kind: "number", cell: (task) => percent(unseen.normalizer[task]) },
    ], Object.keys(unseen.tasks)),
    corrupted && element("h3", {}, `Corrupted images, severity ${corrupted.severity}`),
    corrupted && makeTable("Corrupted images", [
      { head: "corruption", cell: (name) => name.replace(/_/g, " ") },
      { head: "accuracy", kind: "number", cell: (name) => percent(mean(corrupted.test[name])) },
    ], Object.keys(corrupted.test)),
  ];
};

const showDetail = (run) => {
  const title = element("h2", { id: "detail-title", tabindex: "-1" }, fullName(run));
  const close = element("button", { type: "button", onclick: closeDetail }, "Close");
  const knobs = Object.entries(shared(run, "knobs"))
    .map(([name, value]) => [name, valueText(value)]);
  const notes = (shared(run, "published") || { notes: [] }).notes;
  const detail = byId("detail");
  detail.dataset.run = run.id;
  detail.replaceChildren(...[
    element("div", { class: "title" }, title, close),
    run.in_table ? null : element("p", { class: "warning" },
      "In no table below: a newer Run has the same settings, or its test images are others."),
    facts(run),
    ...notes.map((note) => element("p", { class: "quiet" }, note)),
    element("h3", {}, "Tasks"),
    makeTable("Tasks", taskColumns(run), Object.keys(shared(run, "tasks"))),
    element("p", { class: "quiet" },
      "Intervals are Wilson's; the vertical line is the individual model."),
    ...beyond(run),
    element("h3", {}, "Configuration"),
    knobs.length ? makeList(knobs) : element("p", { class: "quiet" }, "The method has no knobs."),
    shared(run, "alpha_curve").length ? makeDetails("Alpha curve", alphaTable(run)) : null,
    makeDetails("Checkpoints and data", checkpointTable(run)),
    makeDetails("Versions", makeList(Object.entries(shared(run, "versions")))),
    makeDetails("Settings that determine the result",
      element("pre", { tabindex: "0" }, JSON.stringify(settingsOf(run), null, 1))),
  ].filter(Boolean));
  detail.hidden = false;
  title.focus({ preventScroll: true });
  detail.scrollIntoView();
};

const openRun = (run) => {
  const address = `#run=${run.id}`;
  if (location.hash === address) showDetail(run); // no change of the address to follow
  else location.hash = address;
};

const closeDetail = () => {
  const { run } = byId("detail").dataset;
  byId("detail").hidden = true;
  history.replaceState(null, "", "#runs");
  const row = byId("runs-table").querySelector(`tr[data-run="${run}"] button`);
  (row || byId("runs-title")).focus();
};
