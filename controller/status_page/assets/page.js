// The status page: shows what `api/v1/stream` says, and asks `api/v1/pods` for the Pods that somebody looks at.
//
// Texts that others wrote get into the page by textContent alone. Rows are kept by their keys and changed in place, so
// that focus, selection and what was unfolded stay.

const PODS_AT_ONCE = 50;
const SILENCE_MS = 40_000; // a stream says something every 15 seconds
const AGAIN_MS = 3_000;
const ANNOUNCE_MS = 10_000;
const PODS_AGAIN_MS = 1_000;
const FEW_POOLS = 3; // with few, their Pods are unfolded at once

const none = { total: 0, items: [] };
const known = { version: null, replica: null, pools: none, plans: none, queue: none, decisions: none };
let clockAhead = 0; // of the controller's clock, in milliseconds

const byId = (id) => document.getElementById(id);

// --- making elements -------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function setText(node, text) {
  const wanted = text ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
}

function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Have `parent` hold one element for each item, in order: known ones are changed, others made or removed.
function keyed(parent, items, keyOf, create, update) {
  const before = parent.elementsByKey ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!now.has(key)) now.set(key, before.get(key) ?? create(item));
  }
  for (const [key, node] of before) if (!now.has(key)) node.remove();
  const focused = document.activeElement;
  let place = parent.firstElementChild;
  for (const node of now.values()) {
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
  parent.elementsByKey = now;
  for (const item of items) update(now.get(keyOf(item)), item);
}

// A row whose cells are named by the heads of its table; `row.cells` has them in order.
function makeRow(labels) {
  return make("tr", { role: "row" }, ...labels.map((label) => make("td", { role: "cell", "data-label": label }, make("span"))));
}

const cell = (row, index) => row.children[index].firstElementChild;

function fillTable(section, list, keyOf, labels, update, create = () => makeRow(labels)) {
  const table = section.querySelector("table");
  setHidden(section.querySelector(".empty"), list.total > 0 || known.version === null);
  setHidden(table, list.total === 0);
  keyed(table.querySelector("tbody"), list.items, keyOf, create, update);
  sayMore(section, list);
}

function sayMore(section, list) {
  const more = section.querySelector(":scope > .more");
  if (more === null) return;
  setHidden(more, list.total <= list.items.length);
  setText(more, `and ${list.total - list.items.length} more`);
}

// --- time ------------------------------------------------------------------------------------------------------------

function length(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const parts = [
    [Math.floor(seconds / 86400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0s";
  return parts.slice(first, first + 2).filter(([count]) => count > 0).map(([count, unit]) => `${count}${unit}`).join("");
}

// A time that counts up from (`since`) or down to (`until`) a moment.
function showTime(node, moment, kind) {
  let time = node.querySelector("time");
  if (moment === null || moment === undefined) {
    time?.remove();
    return;
  }
  if (time === null) {
    time = make("time");
    node.append(time);
  }
  if (time.getAttribute("datetime") !== moment || time.dataset.kind !== kind) {
    time.setAttribute("datetime", moment);
    time.title = new Date(moment).toLocaleString();
    time.dataset.kind = kind;
  }
  countTime(time);
}

function countTime(time) {
  const now = Date.now() + clockAhead;
  const moment = Date.parse(time.getAttribute("datetime"));
  if (time.dataset.kind === "until") setText(time, moment > now ? length(moment - now) : "now");
  else setText(time, length(now - moment));
}

setInterval(() => {
  for (const time of document.querySelectorAll("time")) countTime(time);
}, 1000);

// --- announcing ------------------------------------------------------------------------------------------------------

let announced = 0;
let toAnnounce = null;

// Say something to screen readers: the last of what is said within ten seconds.
function announce(text) {
  const wait = announced + ANNOUNCE_MS - Date.now();
  if (toAnnounce !== null) clearTimeout(toAnnounce);
  toAnnounce = setTimeout(() => {
    announced = Date.now();
    toAnnounce = null;
    setText(byId("announce"), text);
  }, Math.max(0, wait));
}

// --- the parts -------------------------------------------------------------------------------------------------------

const named = (item) => `${item.namespace}/${item.name}`;

function showReplica() {
  const replica = known.replica;
  const where = replica.namespace === null ? "" : ` Only namespace ${replica.namespace} is looked after.`;
  const unread = replica.synced ? "" : " Not everything was read yet.";
  const leader = replica.leader === null ? "No replica leads." : `${replica.leader} leads.`;
  const who = replica.leads ? `This replica leads: ${replica.identity}.` : `This replica, ${replica.identity}, stands by. ${leader}`;
  setText(byId("leader"), who + where + unread);
}

let plansBefore = null;

function showPlans() {
  const plans = known.plans;
  const count = byId("plans-count");
  setText(count, String(plans.total));
  count.classList.toggle("some", plans.total > 0);
  document.title = plans.total > 0 ? `(${plans.total}) podslots` : "podslots";
  const labels = ["Task", "Pool", "Where", "Waits", "Expires in", "Approve"];
  fillTable(byId("plans"), plans, (plan) => `${named(plan)} ${plan.attempt} ${plan.plan_digest}`, labels, updatePlan, () => makePlan(labels));
  if (plansBefore !== null && plansBefore !== plans.total) {
    announce(plans.total === 1 ? "1 plan awaits approval" : `${plans.total} plans await approval`);
  }
  plansBefore = plans.total;
}

function makePlan(labels) {
  const row = makeRow(labels);
  const task = cell(row, 0);
  task.append(make("strong"), " ", make("span", { class: "soft" }), make("span", { class: "bad" }));
  const code = make("code");
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => copy(code, button));
  const command = make("span", { class: "command" }, code, button);
  cell(row, 5).append(command);
  return row;
}

function updatePlan(row, plan) {
  const [name, about, problem] = cell(row, 0).children;
  setText(name, named(plan));
  const found = plan.changes === null ? "" : plan.changes ? ", changes something" : ", changes nothing";
  setText(about, `attempt ${plan.attempt}${found}`);
  setText(problem, plan.problem === null ? "" : ` An approval was refused. ${sentence(plan.problem)}`);
  setText(cell(row, 1), plan.pool);
  setText(cell(row, 2), plan.pod === null ? "" : `${plan.pod}, slot ${plan.slot}`);
  showTime(cell(row, 3), plan.since, "since");
  showTime(cell(row, 4), plan.expires_at, "until");
  const [code, button] = cell(row, 5).firstElementChild.children;
  setText(code, plan.command);
  setAttribute(code, "title", plan.plan_digest ?? "");
  setAttribute(button, "aria-label", `Copy the command for ${named(plan)}`);
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    setText(button, "Copied");
    setTimeout(() => setText(button, "Copy"), 2000);
  } catch {
    getSelection().selectAllChildren(code); // not allowed here: at least it is marked
    setText(button, "Marked");
  }
}

function showQueue() {
  const labels = ["Task", "Pool", "Type", "Age", "Waits for"];
  setText(byId("queue-count"), String(known.queue.total));
  fillTable(byId("queue"), known.queue, named, labels, (row, task) => {
    setText(cell(row, 0), named(task));
    setText(cell(row, 1), task.pool);
    const more = [task.type];
    if (task.priority !== 0) more.push(`priority ${task.priority}`);
    if (task.attempt > 1) more.push(`attempt ${task.attempt}`);
    setText(cell(row, 2), more.join(", "));
    showTime(cell(row, 3), task.since, "since");
    setText(cell(row, 4), task.waits ?? "");
    cell(row, 4).classList.toggle("bad", task.refused);
  });
}

function showDecisions() {
  const labels = ["Ago", "About", "Reason", "What"];
  fillTable(byId("decisions"), known.decisions, (one) => String(one.number), labels, (row, one) => {
    showTime(cell(row, 0), one.at, "since");
    setText(cell(row, 1), `${one.kind.replace("Slot", "").toLowerCase()} ${one.namespace}/${one.name}`);
    setText(cell(row, 2), one.reason);
    cell(row, 2).classList.toggle("bad", one.warning);
    setText(cell(row, 3), one.times > 1 ? `${one.message} (${one.times} times)` : one.message);
  });
}

// --- pools -----------------------------------------------------------------------------------------------------------

const STATES = ["reserved", "running", "recovering", "idle"];

function showPools() {
  const section = byId("pools");
  setText(byId("pools-count"), String(known.pools.total));
  setHidden(section.querySelector(":scope > .empty"), known.pools.total > 0);
  keyed(byId("pool-list"), known.pools.items, named, makePool, updatePool);
  sayMore(section, known.pools);
}

let poolsMade = 0;

function makePool(pool) {
  const id = `pool-${++poolsMade}`;
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, ...STATES.map((state) => make("span", { class: state })));
  const node = make(
    "article",
    { class: "pool", "aria-labelledby": id },
    make("h3", { id }),
    make("p", { class: "size" }),
    make("p", { class: "counts" }),
    bar,
    make("ul", { class: "concerns slots" }),
    makeConditions(),
  );
  node.pods = new Pods(pool);
  node.append(node.pods.node);
  if (known.pools.total <= FEW_POOLS) node.pods.node.open = true;
  return node;
}

function makeConditions() {
  const heads = ["Condition", "Status", "Reason", "Message", "For"];
  const head = make("tr", { role: "row" }, ...heads.map((text) => make("th", { role: "columnheader", scope: "col" }, text)));
  const table = make("table", { role: "table" }, make("thead", { role: "rowgroup" }, head), make("tbody", { role: "rowgroup" }));
  return make("details", { class: "conditions" }, make("summary", {}, "Conditions"), table);
}

function updatePool(node, pool) {
  const find = (selector) => node.querySelector(selector);
  setText(find("h3"), named(pool));
  setText(find(".size"), sizeWords(pool));
  const counts = find(".counts");
  if (counts.firstChild === null) counts.append(...STATES.map((state) => make("span", { class: `state ${state}` })));
  STATES.forEach((state, index) => {
    const count = pool.slots[state] ?? 0;
    const part = counts.children[index];
    setHidden(part, state === "recovering" && count === 0);
    part.classList.toggle("zero", count === 0);
    let words = `${count} ${state}`;
    const since = pool[`${state}_since`];
    if (since) words += ", the oldest for ";
    else words += ". ";
    if (part.firstChild === null) part.append(make("span"), make("span"), make("span"));
    setText(part.children[0], words);
    showTime(part.children[1], since, "since");
    setText(part.children[2], since ? ". " : "");
    find(`.bar .${state}`).style.flexGrow = String(count);
  });
  const concerns = pool.conditions.filter((condition) => condition.concern);
  if (pool.problem !== null) concerns.unshift({ type: "Problem", reason: "", message: pool.problem });
  keyed(find(".concerns"), concerns, (one) => one.type, () => make("li", { class: "bad" }), (item, one) => {
    setText(item, [`${one.type}: ${one.reason}`, one.message].filter((text) => text).join(". "));
  });
  setAttribute(find(".conditions table"), "aria-label", `Conditions of ${named(pool)}`);
  setHidden(find(".conditions"), pool.conditions.length === 0);
  const labels = ["Condition", "Status", "Reason", "Message", "For"];
  keyed(find(".conditions tbody"), pool.conditions, (one) => one.type, () => makeRow(labels), (row, one) => {
    [one.type, one.status, one.reason, one.message].forEach((text, index) => setText(cell(row, index), text));
    row.classList.toggle("bad", one.concern);
    showTime(cell(row, 4), one.since, "since");
  });
  node.pods.update(pool);
}

function sizeWords(pool) {
  const parts = [`${pool.replicas} Pod${pool.replicas === 1 ? "" : "s"}, ${pool.ready} ready`];
  if (pool.desired !== null) parts.push(`${pool.desired} wanted`);
  if (pool.maximum !== null) parts.push(`between ${pool.minimum} and ${pool.maximum}`);
  if (pool.silent > 0) parts.push(`${pool.silent} not heard`);
  if (pool.paused) parts.push("autoscaling is paused");
  if (pool.deleting) parts.push("being deleted");
  const scaling = pool.conditions.find((condition) => condition.type === "ScalingActive");
  return `${parts.join(", ")}.${scaling && scaling.message ? ` Why: ${sentence(scaling.message)}` : ""}`;
}

// With a full stop, unless it has one: the controller's own messages do.
const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

// The Pods of a pool, a page at a time, asked for while they are unfolded.
class Pods {
  constructor(pool) {
    this.pool = pool;
    this.offset = 0;
    this.total = 0;
    this.shown = null; // the revision that was asked for last
    this.asking = null;
    this.askedAt = 0;
    this.later = null;
    this.summary = make("summary");
    this.state = make("select", {}, ...[["", "all"], ["reserved", "reserved slots"], ["running", "running slots"], ["idle", "idle slots"], ["recovering", "recovering slots"], ["silent", "not heard"]].map(([value, text]) => make("option", { value }, text)));
    this.sort = make("select", {}, make("option", { value: "name" }, "name"), make("option", { value: "age" }, "longest held first"));
    this.text = make("input", { type: "search", placeholder: "Pod or task", autocomplete: "off", spellcheck: "false" });
    this.back = make("button", { type: "button" }, "Previous");
    this.next = make("button", { type: "button" }, "Next");
    this.place = make("span", { class: "number" });
    const head = make("tr", { role: "row" }, ...["Pod", "State", "Slots"].map((text) => make("th", { role: "columnheader", scope: "col" }, text)));
    this.body = make("tbody", { role: "rowgroup" });
    this.table = make("table", { role: "table" }, make("thead", { role: "rowgroup" }, head), this.body);
    const controls = make(
      "div",
      { class: "controls" },
      make("label", {}, "Show ", this.state),
      make("label", {}, "by ", this.sort),
      make("label", {}, "named ", this.text),
    );
    this.pager = make("div", { class: "controls" }, this.back, this.place, this.next);
    this.problem = make("p", { class: "bad", hidden: "" });
    this.nothing = make("p", { class: "empty", hidden: "" }, "No such Pod.");
    this.node = make("details", { class: "pods" }, this.summary, controls, this.problem, this.nothing, this.table, this.pager);
    this.node.addEventListener("toggle", () => this.node.open && this.ask());
    for (const control of [this.state, this.sort]) control.addEventListener("change", () => this.askFrom(0));
    this.text.addEventListener("input", () => this.askFrom(0));
    this.back.addEventListener("click", () => this.askFrom(Math.max(0, this.offset - PODS_AT_ONCE)));
    this.next.addEventListener("click", () => this.askFrom(this.offset + PODS_AT_ONCE));
  }

  update(pool) {
    this.pool = pool;
    const all = Object.values(pool.pods).reduce((sum, count) => sum + count, 0);
    setText(this.summary, `Pods (${all})`);
    setAttribute(this.table, "aria-label", `Pods of ${named(pool)}`);
    if (this.node.open && this.shown !== `${known.version.split(".")[0]} ${pool.revision}`) this.askSoon();
  }

  askSoon() {
    if (this.later !== null) return;
    const wait = Math.max(0, this.askedAt + PODS_AGAIN_MS - Date.now());
    this.later = setTimeout(() => this.ask(), wait);
  }

  askFrom(offset) {
    this.offset = offset;
    this.ask();
  }

  async ask() {
    clearTimeout(this.later);
    this.later = null;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    this.askedAt = Date.now();
    const revision = `${known.version.split(".")[0]} ${this.pool.revision}`;
    const query = new URLSearchParams({
      namespace: this.pool.namespace,
      pool: this.pool.name,
      state: this.state.value,
      sort: this.sort.value,
      text: this.text.value,
      offset: this.offset,
      limit: PODS_AT_ONCE,
    });
    try {
      const answer = await fetch(`api/v1/pods?${query}`, { signal: asking.signal });
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      this.show(await answer.json());
      this.shown = revision;
      setHidden(this.problem, true);
    } catch (error) {
      if (asking.signal.aborted) return;
      setHidden(this.problem, false);
      setText(this.problem, `The Pods could not be read: ${error.message}`);
    }
  }

  show(list) {
    if (list.items.length === 0 && list.total > 0 && this.offset > 0) {
      this.askFrom(Math.floor((list.total - 1) / PODS_AT_ONCE) * PODS_AT_ONCE);
      return;
    }
    this.total = list.total;
    const last = Math.min(this.offset + PODS_AT_ONCE, list.total);
    setText(this.place, `${this.offset + 1} to ${last} of ${list.total}`);
    this.back.disabled = this.offset === 0;
    this.next.disabled = last >= list.total;
    setHidden(this.pager, list.total <= PODS_AT_ONCE && this.offset === 0);
    setHidden(this.table, list.items.length === 0);
    setHidden(this.nothing, list.items.length > 0);
    keyed(this.body, list.items, (pod) => pod.name, () => makeRow(["Pod", "State", "Slots"]), updatePod);
  }
}

function updatePod(row, pod) {
  const [name, state, slots] = [cell(row, 0), cell(row, 1), cell(row, 2)];
  if (state.firstChild === null) {
    state.append(make("span"), make("span", { class: "soft" }), make("ul", { class: "slots" }));
    slots.append(make("ul", { class: "slots" }));
  }
  setText(name, pod.name);
  setText(state.children[0], pod.connected || pod.state === "starting" ? pod.state : `${pod.state}, not heard`);
  state.children[0].classList.toggle("bad", !pod.connected && pod.state !== "starting");
  setText(state.children[1], "");
  if (pod.idle_since !== null) {
    state.children[1].append(", idle for ");
    showTime(state.children[1], pod.idle_since, "since");
  }
  keyed(state.children[2], pod.notes, (note) => note, () => make("li", { class: "soft" }), setText);
  keyed(slots.firstElementChild, pod.slots, (slot) => String(slot.id), makeSlot, updateSlot);
}

function makeSlot() {
  return make("li", {}, make("span", { class: "number" }), make("span", { class: "state" }), make("span"), make("span"), make("span"), make("span"));
}

function updateSlot(item, slot) {
  const [id, state, holder, age, until, expires] = item.children;
  setText(id, `${slot.id} `);
  setText(state, slot.state);
  setAttribute(state, "class", `state ${slot.state}`);
  item.title = `takes ${slot.accepts.join(", ")}`;
  const step = slot.step === null ? "" : ` (${slot.step})`;
  setText(holder, slot.holder === null ? " for " : ` ${slot.holder}${step} for `);
  showTime(age, slot.since, "since");
  setText(until, slot.expires_at === null ? "" : ", expires in ");
  showTime(expires, slot.expires_at, "until");
  if (slot.worker === false) setText(until, `, its worker is not heard${until.textContent}`);
}

// --- the stream ------------------------------------------------------------------------------------------------------

const SHOW = { replica: showReplica, plans: showPlans, pools: showPools, queue: showQueue, decisions: showDecisions };

let stream = null;
let heardAt = 0;
let opening = null;
let lostSince = null;

function open() {
  clearTimeout(opening);
  opening = null;
  close();
  const since = known.version === null ? "" : `?since=${encodeURIComponent(known.version)}`;
  heardAt = Date.now();
  stream = new EventSource(`api/v1/stream${since}`);
  stream.addEventListener("status", (event) => heard(event, true));
  stream.addEventListener("beat", (event) => heard(event, false));
  stream.addEventListener("error", () => {
    lost();
    if (stream?.readyState === EventSource.CLOSED) openLater(); // refused: the browser does not try again by itself
  });
}

function close() {
  stream?.close();
  stream = null;
}

function openLater() {
  close();
  opening ??= setTimeout(open, AGAIN_MS);
}

function heard(event, shows) {
  const said = JSON.parse(event.data);
  heardAt = Date.now();
  clockAhead = Date.parse(said.now) - heardAt;
  if (lostSince !== null) announce("Connected again");
  lostSince = null;
  const link = byId("link");
  link.classList.remove("lost");
  setText(link, "Live");
  if (!shows) return;
  const changed = Object.keys(SHOW).filter((part) => part in said);
  Object.assign(known, said);
  for (const part of changed) SHOW[part]();
}

function lost() {
  lostSince ??= new Date();
  const link = byId("link");
  link.classList.add("lost");
  setText(link, `Not connected since ${lostSince.toLocaleTimeString()}: what is shown is from then. Trying again.`);
}

setInterval(() => {
  if (stream !== null && Date.now() - heardAt > SILENCE_MS) {
    lost();
    openLater();
  }
}, 5000);

// A browser has six connections for all its tabs: one that nobody looks at leaves its own to others.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(opening);
    opening = null;
    close();
  } else if (stream === null) {
    open();
  }
});

if (!document.hidden) open();
