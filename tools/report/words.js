// Numbers as words, and elements made of text. Whatever comes from the run is a text node, never markup.
const NONE = "–";
const number = (value, decimals = 0) =>
    value.toLocaleString("en", {minimumFractionDigits: decimals, maximumFractionDigits: decimals});
/// Three figures of what is below 100, and no fraction of a whole number.
function figures(value) {
  const rounded = Number(value.toPrecision(3));
  if (value >= 100 || Math.abs(value - Math.round(value)) < 1e-9) return number(value);
  return number(rounded, rounded >= 100 ? 0 : rounded >= 10 ? 1 : 2);
}
const short = value => value == null ? NONE :
    value >= 1e6                     ? figures(value / 1e6) + " M" :
    value >= 1e4                     ? figures(value / 1e3) + " k" :
                                       figures(value);
const count = value => value == null ? NONE : figures(value);
function time(seconds) {
  if (seconds == null) return NONE;
  if (seconds === 0) return "0";
  for (const [unit, name] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= unit) return figures(seconds / unit) + " " + name;
  }
  return number(seconds * 1e9) + " ns";
}
function share(value) {
  if (value == null) return NONE;
  const percent = value * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.001) return "<0.001 %";
  return number(
             percent,
             percent < 0.1                          ? 3 :
                 percent < 1                        ? 2 :
                 percent < 99.95 || percent === 100 ? 1 :
                                                      2)
             .replace(/\.0$/, "") +
      " %";
}
/// A swarm tries no backlogs, so one that is not there is not known.
const backlog_name = backlog => backlog != null ? number(backlog) : is_swarm ? "not known" : "unlimited";
const plural = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

const $ = id => document.getElementById(id);
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children.map(child => child instanceof Node ? child : String(child)));
  return element;
}
const say = (id, ...children) => $(id).replaceChildren(...children);

/// Buttons of which one is pressed; `chosen` is called with its key.
function make_switch(id, choices, pressed, chosen) {
  const buttons = choices.map(([key, text]) => {
    const button = make("button", {"aria-pressed": key === pressed}, text);
    button.onclick = () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      chosen(key);
    };
    return button;
  });
  say(id, ...buttons);
}
/// A list of which one is chosen; `chosen` is called with its index.
function make_select(choices, index, chosen) {
  const select = make("select", {}, ...choices.map((text, i) => make("option", {value: i}, text)));
  select.value = index;
  select.onchange = () => chosen(Number(select.value));
  return select;
}
function save(name, type, text) {
  const link = make("a", {href: URL.createObjectURL(new Blob([text], {type})), download: name});
  document.body.append(link);
  link.click();
  link.remove();
}
async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page from a file may not be trusted with it: then what one selects can be copied
    const area = make("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => {
    button.textContent = "Copy";
  }, 1500);
}
