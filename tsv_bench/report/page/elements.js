// Make elements of the document. Texts are always text: what a Run says is never taken for html.
//
// Uses: nothing of the other scripts.
// Gives: byId, element, makeTable, makeList, makeDetails, makeScale, fillOptions.

const byId = (id) => document.getElementById(id);

// Properties: "class", "onclick" and the like take a listener, all others are attributes.
// Children that are null are left out.
const element = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat(2).filter((child) => child !== null));
  return made;
};

// columns: [{head, cell: item -> text or element, kind: "number", "text" or "wrap"}]; the first
// column heads the rows. footer: one more item, set apart.
const makeTable = (label, columns, items, footer = null) => {
  const head = columns.map(({ head, kind }) =>
    element("th", { scope: "col", class: kind === "number" ? "" : "text" }, head));
  const row = (item) => element("tr", {}, columns.map(({ cell, kind }, index) =>
    index === 0
      ? element("th", { scope: "row" }, cell(item))
      : element("td", { class: kind === "number" ? "" : `text ${kind}` }, cell(item))));
  const table = element("table", {},
    element("thead", {}, element("tr", {}, head)), element("tbody", {}, items.map(row)));
  if (footer) table.append(element("tfoot", {}, row(footer)));
  const frame = { class: "wide", tabindex: "0", role: "region", "aria-label": label };
  return element("div", frame, table);
};

// pairs: [[term, description]]; a term without description is left out.
const makeList = (pairs) => element("dl", {}, pairs
  .filter(([, description]) => description !== null && description !== "")
  .map(([term, description]) => [element("dt", {}, term), element("dd", {}, description)]));

const makeDetails = (title, ...content) =>
  element("details", {}, element("summary", {}, title), ...content);

// A horizontal scale from low to high with marks on it: [{class, from, to}], or {class, at}.
const makeScale = (low, high, marks) => {
  const place = (value) => Math.min(100, Math.max(0, (100 * (value - low)) / (high - low)));
  const scale = element("span", { class: "scale", "aria-hidden": "true" });
  for (const mark of marks) {
    const part = element("span", { class: mark.class });
    const from = place("at" in mark ? mark.at : Math.min(mark.from, mark.to));
    part.style.left = `${from}%`;
    if (!("at" in mark)) part.style.width = `${place(Math.max(mark.from, mark.to)) - from}%`;
    scale.append(part);
  }
  return scale;
};

// options: [[value, text]].
const fillOptions = (select, options, selected) => {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  select.value = selected;
};
