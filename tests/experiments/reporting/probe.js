// Uses a page in a frame as a reader does, and appends what it saw to the page around.
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
console.error = (...words) => seen.errors.push(words.join(" "));

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// What the page has, in the order of the page, its components included.
function all(selector, root = document) {
  const own = [...root.querySelectorAll(selector)];
  const hosts = [...root.querySelectorAll("*")].filter((e) => e.shadowRoot);
  return own.concat(...hosts.map((e) => all(selector, e.shadowRoot)));
}

const rows = (table) =>
  all(".slick-row", table.shadowRoot).map((row) => row.innerText.split("\n"));

// What a chart says under the pointer, moved over it until it says something.
async function hover(chart) {
  chart.scrollIntoView();
  await wait(200);
  const box = chart.getBoundingClientRect();
  for (let i = 0.1; i < 1; i += 0.05) {
    for (let j = 0; j < 1; j += 0.01) {
      const place = { clientX: box.left + i * box.width, clientY: box.top + j * box.height };
      const event = { ...place, view: window, isPrimary: true, bubbles: true, composed: true };
      chart.dispatchEvent(new PointerEvent("pointermove", event));
      await wait(1);
      const said = all(".bk-tooltip-row-value").map((e) => e.innerText);
      if (said.length) return said;
    }
  }
  return [];
}

async function use() {
  for (const image of document.images) image.loading = "eager";
  await wait(3000);
  const tables = all(".bk-DataTable");
  const titles = all(".slick-header-column", tables[0].shadowRoot);
  seen.tables = tables.map(rows);
  seen.titles = titles.map((e) => e.innerText.trim());
  titles[2].click();
  await wait(200);
  titles[2].click();
  await wait(200);
  seen.sorted = rows(tables[0]);
  seen.charts = all(".bk-Figure").map((e) => [e.clientWidth, e.clientHeight]);
  seen.hover = await hover(all(".bk-events")[0]);
  seen.images = [...document.images].map((e) => e.naturalWidth);
  seen.width = innerWidth;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
}

addEventListener("load", async () => {
  await use().catch((error) => seen.errors.push(String(error)));
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  parent.document.body.append(out);
});
