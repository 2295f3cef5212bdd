'use strict';
const $ = id => document.getElementById(id);
const el = (tag, attrs = {}, ...inside) => { const e = Object.assign(document.createElement(tag), attrs); e.append(...inside.filter(x => x != null)); return e; };
// Relative, so that a prefix before all routes holds here too.
const base = location.pathname.replace(/(index\.html)?$/, '').replace(/\/$/, '');
let key = sessionStorage.getItem('key') || '';
let model = '', history = [], running = null;

async function call(path, options = {}) {
  const headers = { ...(options.body ? { 'Content-Type': 'application/json' } : {}), ...(key ? { Authorization: 'Bearer ' + key } : {}) };
  const response = await fetch(base + path, { ...options, headers });
  if (response.status === 401) { await askKey(); return call(path, options); }
  if (!response.ok) { let m = response.statusText; try { m = (await response.json()).error.message; } catch { } throw new Error(m); }
  return response;
}
function askKey() {
  return new Promise(done => { const d = $('keys'); d.onclose = () => { key = $('key').value; sessionStorage.setItem('key', key); done(); }; if (!d.open) d.showModal(); });
}
const get = async path => (await call(path)).json();
const post = async (path, body) => (await call(path, { method: 'POST', body: JSON.stringify(body) })).json();

// Tabs; the address remembers which.
const tabs = [...document.querySelectorAll('nav button')];
function show(tab) {
  tabs.forEach(b => b.classList.toggle('on', b.dataset.tab === tab));
  document.querySelectorAll('section').forEach(s => s.classList.toggle('on', s.id === tab));
  window.history.replaceState(null, '', '#' + tab);
  if (tab === 'adapters') list(false);
  if (tab === 'board') board();
}
tabs.forEach(b => b.onclick = () => show(b.dataset.tab));

// Answers: a little Markdown, made of nodes, never of HTML.
function inline(text) {
  const out = [];
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (part.length > 2 && part[0] === '`') out.push(el('code', { textContent: part.slice(1, -1) }));
    else if (part.length > 4 && part.startsWith('**')) out.push(el('strong', { textContent: part.slice(2, -2) }));
    else if (part) out.push(part);
  }
  return out;
}
function blocks(text) {
  const out = []; let items = null;
  text.split(/(```[^\n]*\n[\s\S]*?(?:```|$))/).forEach((part, i) => {
    if (i % 2) { out.push(el('pre', {}, el('code', { textContent: part.replace(/^```[^\n]*\n/, '').replace(/\n?```$/, '') }))); return; }
    for (const paragraph of part.split(/\n{2,}/)) {
      if (!paragraph.trim()) continue;
      const lines = paragraph.trim().split('\n');
      const mark = l => /^\s*[-*•] +/.test(l) ? 'ul' : /^\s*\d+[.)] +/.test(l) ? 'ol' : '';
      let p = null;
      for (const line of lines) {
        const kind = mark(line), head = line.match(/^#{1,4} +(.*)/);
        if (kind) { if (!items || items.localName !== kind) { items = el(kind); out.push(items); } items.append(el('li', {}, ...inline(line.replace(/^\s*([-*•]|\d+[.)]) +/, '')))); p = null; continue; }
        items = null;
        if (head) { out.push(el('h3', {}, ...inline(head[1]))); p = null; continue; }
        if (p) p.append(el('br')); else { p = el('p'); out.push(p); }
        p.append(...inline(line));
      }
      items = null;
    }
  });
  return out;
}

// What the router saw.
function why(route) {
  const box = el('div', { className: 'why' }), chosen = new Set(route.adapters.map(a => a.name));
  box.append(el('p', { textContent: `${route.strategy} · confidence ${(+route.confidence).toFixed(2)}${route.reason ? ' · ' + route.reason : ''}` }));
  const top = Math.max(...route.candidates.map(c => c.share), 1e-9);
  for (const c of route.candidates) {
    const fill = el('b'); fill.style.width = (100 * c.share / top).toFixed(1) + '%';
    box.append(el('div', { className: 'bar' + (chosen.has(c.name) ? ' chosen' : ''), title: `meaning ${c.semantic}, words ${c.keyword}` }, el('span', { textContent: c.name }), el('i', {}, fill), el('span', { textContent: (100 * c.share).toFixed(0) + ' %' })));
  }
  if (!route.candidates.length) box.append(el('p', { textContent: 'no candidates' }));
  return box;
}
const chips = adapters => adapters.length
  ? adapters.map(a => el('span', { className: 'chip', textContent: a.name + (a.scale === 1 ? '' : ' × ' + (+a.scale).toFixed(2)), title: a.digest || '' }))
  : [el('span', { className: 'chip plain', textContent: 'base model' })];

function bubble(role, text) {
  $('hello').hidden = true;
  const body = el('div', { className: 'text', textContent: text }), meta = el('div', { className: 'meta' });
  const box = el('div', { className: 'say ' + role }, body, role === 'bot' ? meta : null);
  $('log').append(box); box.scrollIntoView({ block: 'end' });
  return { box, body, meta };
}

async function send(text) {
  history.push({ role: 'user', content: text }); bubble('user', text);
  const out = bubble('bot', ''); out.body.classList.add('wait');
  let thoughts = null, said = '', id = '', end = {}, pending = 0;
  const system = $('system').value.trim(), chosen = $('adapter').value, format = $('format').value;
  const body = { messages: [...(system ? [{ role: 'system', content: system }] : []), ...history], stream: true, stream_options: { include_usage: true }, temperature: +$('temperature').value, max_tokens: +$('most').value };
  if (chosen) body.model = model + ':' + chosen;
  if (format) body.format = format;
  running = new AbortController(); working(true);
  const log = $('log');
  const draw = () => { pending = 0; const near = log.scrollHeight - log.scrollTop - log.clientHeight < 140; out.body.replaceChildren(...blocks(said)); if (near) log.scrollTop = log.scrollHeight; };
  try {
    const response = await call('/v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal: running.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); let rest = '';
    for (;;) {
      const { value, done } = await reader.read(); if (done) break;
      rest += value; const lines = rest.split('\n'); rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        id = event.id; for (const k of ['adapters', 'route', 'usage', 'timings']) if (event[k]) end[k] = event[k];
        const delta = event.choices[0] && event.choices[0].delta;
        if (delta && delta.reasoning_content) { if (!thoughts) { thoughts = el('p'); out.box.insertBefore(el('details', { open: true }, el('summary', { textContent: 'Thoughts' }), thoughts), out.body); } thoughts.append(delta.reasoning_content); }
        if (delta && delta.content) { said += delta.content; pending = pending || requestAnimationFrame(draw); }
      }
    }
    history.push({ role: 'assistant', content: said });
  } catch (e) {
    if (e.name === 'AbortError') { if (said) history.push({ role: 'assistant', content: said }); end.note = 'stopped'; }
    else { out.meta.append(el('span', { className: 'bad', textContent: e.message })); history.pop(); }
  }
  cancelAnimationFrame(pending); draw(); out.body.classList.remove('wait'); running = null; working(false);
  const span = text => out.meta.append(el('span', { textContent: text }));
  if (end.adapters) out.meta.append(...chips(end.adapters));
  if (end.timings && end.timings.predicted_per_second) span(end.timings.predicted_per_second.toFixed(0) + ' tokens/s');
  if (end.usage) { const c = end.usage.prompt_tokens_details.cached_tokens; span(`${end.usage.prompt_tokens}${c ? ` (${c} cached)` : ''} → ${end.usage.completion_tokens} tokens`); }
  if (end.note) span(end.note);
  if (end.route) { const b = el('button', { textContent: 'Why?' }), box = why(end.route); box.hidden = true; b.onclick = () => { box.hidden = !box.hidden; box.scrollIntoView({ block: 'nearest' }); }; out.meta.append(b); out.box.append(box); }
  if (id && end.adapters && end.adapters.length) for (const [mark, success] of [['Good', true], ['Bad', false]]) {
    const b = el('button', { textContent: mark, className: 'mark', title: 'Tell the library how this answer was' });
    b.onclick = async () => { try { await post('/v1/feedback', { id, success }); span('noted'); } catch (e) { span(e.message); } out.meta.querySelectorAll('.mark').forEach(x => x.remove()); };
    out.meta.append(b);
  }
  out.box.scrollIntoView({ block: 'end' });
}
function working(on) {
  $('send').firstElementChild.firstElementChild.setAttribute('d', on ? 'M6 6h8v8H6z' : 'M10 16.5V4M4.5 9.5 10 4l5.5 5.5');
  $('send').setAttribute('aria-label', on ? 'Stop' : 'Send'); $('hint').textContent = on ? 'answering' : 'Enter sends';
}
$('ask').onsubmit = e => { e.preventDefault(); if (running) return running.abort(); const t = $('text').value.trim(); if (t) { $('text').value = ''; grow(); send(t); } };
$('text').onkeydown = e => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); if (!running) $('ask').requestSubmit(); } };
const grow = () => { const t = $('text'); t.style.height = 'auto'; t.style.height = t.scrollHeight + 'px'; };
$('text').oninput = grow;
$('clear').onclick = () => { if (!running) { history = []; document.querySelectorAll('.say').forEach(s => s.remove()); $('hello').hidden = false; $('text').focus(); } };
$('more').onclick = () => { const s = $('settings'); s.hidden = !s.hidden; $('more').setAttribute('aria-expanded', !s.hidden); };
$('temperature').oninput = () => $('heat').textContent = (+$('temperature').value).toFixed(1);
for (const idea of ['Name three colours of the sea', 'Explain a hash table to a child', 'Write a haiku about rust']) $('ideas').append(el('button', { type: 'button', textContent: idea, onclick: () => send(idea) }));

// Adapters.
const size = n => n < 1e6 ? (n / 1e3).toFixed(0) + ' kB' : (n / 1e6).toFixed(1) + ' MB';
let last = '';
async function list(further) {
  const q = new URLSearchParams({ limit: 60 }), text = $('find').value.trim(); if (text) q.set('text', text); if (further) q.set('after', last);
  try {
    const page = await get('/v1/adapters?' + q); if (!further) $('rows').replaceChildren();
    for (const a of page.data) {
      const tags = [...new Set([...(a.card.tags || []), ...(a.card.domains || []), ...(a.card.tasks || [])])].slice(0, 6);
      const use = el('button', { textContent: 'Use', onclick: () => { pick(a.name); show('chat'); $('text').focus(); } });
      const uses = a.usage.uses ? `${a.usage.uses} ${a.usage.uses === 1 ? 'use' : 'uses'}` : 'unused', good = a.usage.uses ? `${(100 * a.usage.successes / a.usage.uses).toFixed(0)} % good` : '';
      $('rows').append(el('div', { className: 'card' }, el('h3', { textContent: a.card.title || a.name, title: a.name + ' ' + a.digest }),
        el('p', { className: 'about', textContent: a.card.description || 'no description' }),
        tags.length ? el('div', { className: 'tags' }, ...tags.map(t => el('span', { className: 'tag', textContent: t }))) : null,
        el('div', { className: 'foot' }, el('span', { textContent: a.measured.rank_max == null ? size(a.bytes) : `rank ${a.measured.rank_max} · ${size(a.bytes)}` }), el('span', { textContent: uses, title: good }), use)));
      last = a.name;
    }
    if (!page.data.length) $('rows').append(el('p', { className: 'dim', textContent: text ? 'Nothing fits.' : 'The library is empty: smoa adapter add' }));
    $('further').hidden = !page.has_more; $('count').textContent = page.total.toLocaleString();
  } catch (e) { $('rows').replaceChildren(el('p', { className: 'bad', textContent: e.message })); }
}
let timer; $('find').oninput = () => { clearTimeout(timer); timer = setTimeout(() => list(false), 150); };
$('further').onclick = () => list(true);
function pick(name) { const s = $('adapter'); if (![...s.options].some(o => o.value === name)) s.append(el('option', { value: name, textContent: name })); s.value = name; }
$('try').onsubmit = async e => {
  e.preventDefault(); const text = $('question').value.trim(); if (!text) return; const v = $('verdict'); v.hidden = false;
  try { const r = (await post('/v1/route', { text })).route; v.replaceChildren(el('div', { className: 'meta' }, ...chips(r.adapters)), why(r)); } catch (e) { v.replaceChildren(el('p', { className: 'bad', textContent: e.message })); }
};

// Plots.
const NS = 'http://www.w3.org/2000/svg';
const svg = (tag, attrs, text) => { const e = document.createElementNS(NS, tag); for (const k in attrs) e.setAttribute(k, attrs[k]); if (text != null) e.textContent = text; return e; };
const short = v => v === 0 ? '0' : v >= 1000 ? +(v / 1000).toFixed(1) + 'k' : v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(v % 1 ? 1 : 0) : v.toPrecision(2).replace(/\.0$/, '');
const figure = (title, note, inside) => el('figure', {}, el('figcaption', { textContent: title }, el('span', { textContent: note })), inside);
function nice(top) { const p = 10 ** Math.floor(Math.log10(top)); return [1, 2, 2.5, 5, 10].map(m => m * p).find(v => v >= top * 0.999); }
function plot(title, unit, points, colour, dots) {
  if (points.length < 2) return figure(title, unit, el('p', { className: 'none', textContent: 'nothing to show yet' }));
  const W = 420, H = 150, L = 34, B = 20, s = svg('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': title });
  const most = Math.max(...points.map(p => p[1])), top = most > 0 ? nice(most) : 1, x0 = points[0][0], x1 = points[points.length - 1][0];
  const x = v => L + (v - x0) / (x1 - x0 || 1) * (W - L - 8), y = v => 6 + (1 - v / top) * (H - B - 6);
  for (const f of [0, .5, 1]) s.append(svg('line', { x1: L, x2: W, y1: y(top * f), y2: y(top * f), stroke: 'var(--line)' }), svg('text', { x: L - 6, y: y(top * f) + 3.5, 'text-anchor': 'end' }, short(top * f)));
  const line = points.map(p => x(p[0]).toFixed(1) + ',' + y(p[1]).toFixed(1));
  if (dots) points.forEach(p => s.append(svg('circle', { cx: x(p[0]), cy: y(p[1]), r: 2.6, fill: colour, 'fill-opacity': .65 })));
  else s.append(svg('polygon', { points: `${x(x0)},${y(0)} ${line.join(' ')} ${x(x1)},${y(0)}`, fill: colour, 'fill-opacity': .12 }), svg('polyline', { points: line.join(' '), fill: 'none', stroke: colour, 'stroke-width': 1.8, 'stroke-linejoin': 'round' }));
  s.append(svg('text', { x: L, y: H - 5 }, clock(x0)), svg('text', { x: W - 4, y: H - 5, 'text-anchor': 'end' }, clock(x1)));
  return figure(title, unit, s);
}
// Milliseconds, or seconds where they would be thousands.
const timed = (title, points, colour) => points.some(p => p[1] > 2000) ? plot(title, 's', points.map(p => [p[0], p[1] / 1000]), colour, true) : plot(title, 'ms', points, colour, true);
const clock = s => s < 120 ? s.toFixed(0) + ' s' : s < 7200 ? (s / 60).toFixed(0) + ' min' : (s / 3600).toFixed(1) + ' h';
function bars(title, note, counts, colour) {
  const all = Object.entries(counts).sort((a, b) => b[1] - a[1]).slice(0, 7), box = el('div'), top = Math.max(...all.map(a => a[1]), 1);
  for (const [name, n] of all) { const fill = el('b'); fill.style.width = (100 * n / top) + '%'; fill.style.background = colour; box.append(el('div', { className: 'bar', title: name }, el('span', { textContent: name }), el('i', {}, fill), el('span', { textContent: short(n) }))); }
  if (!all.length) box.append(el('p', { className: 'none', textContent: 'nothing to show yet' }));
  return figure(title, note, box);
}
const present = [];
async function board() {
  if (!$('board').classList.contains('on')) return;
  try {
    const d = await get('/v1/dashboard'); present.push([d.uptime_s, d.busy + d.waiting]); if (present.length > 240) present.shift();
    const prompt = d.prompt_tokens + d.cached_tokens, answers = Object.values(d.answers).reduce((a, b) => a + b, 0), percent = (a, b) => b ? (100 * a / b).toFixed(0) : '–';
    const card = (n, unit, what) => el('div', { className: 'card' }, el('b', { textContent: n }, unit ? el('small', { textContent: ' ' + unit }) : null), el('span', { textContent: what }));
    $('uptime').textContent = 'up ' + clock(d.uptime_s);
    $('cards').replaceChildren(card(d.busy, '/ ' + d.slots.length, 'slots busy'), card(d.waiting, '', 'waiting'), card(answers.toLocaleString(), '', 'answers'),
      card(d.predicted_seconds ? (d.predicted_tokens / d.predicted_seconds).toFixed(0) : '–', 'tokens/s', 'per answer'), card(percent(d.cached_tokens, prompt), '%', 'of prompts from cache'),
      card(d.routes.count ? (1e3 * d.routes.seconds / d.routes.count).toFixed(1) : '–', 'ms', 'to choose adapters'), card(d.library == null ? '–' : d.library.toLocaleString(), '', 'adapters in the library'), card((100 * d.context_used).toFixed(0), '%', 'of the context in use'));
    $('slots').replaceChildren(...d.slots.map(s => el('div', { className: 'slot' + (s.is_processing ? ' busy' : '') }, el('b', { textContent: 'slot ' + s.id }), el('span', { textContent: s.is_processing ? s.next_token[0].n_decoded + ' tokens' : 'idle' }), s.is_processing ? el('div', { textContent: (s.adapters || []).join(', ') || 'base' }) : null)));
    $('plots').replaceChildren(plot('Generation speed', 'tokens/s', d.history.map(h => [h[0], h[1]]), 'var(--c1)'), timed('Time to first token', d.history.map(h => [h[0], h[2]]), 'var(--c2)'),
      plot('Requests present', 'running and waiting', present, 'var(--c4)'), timed('Routing latency', d.routes.history.map(h => [h[0], 1e3 * h[1]]), 'var(--c3)'),
      bars('Answers by adapter', 'since the start', d.adapters, 'var(--c1)'), bars('How answers ended', 'since the start', d.answers, 'var(--c2)'));
  } catch (e) { $('cards').replaceChildren(el('p', { className: 'bad', textContent: e.message })); }
}
setInterval(board, 1500);

// What the server was told that the page begins with.
function settle(s) {
  if (s.systemMessage != null) $('system').value = s.systemMessage;
  if (s.temperature != null) { $('temperature').value = s.temperature; $('temperature').oninput(); }
  if (s.max_tokens != null) $('most').value = s.max_tokens;
  if (s.adapter != null) pick(s.adapter);
  if (s.format != null) { const f = $('format'); if (![...f.options].some(o => o.value === s.format)) f.append(el('option', { value: s.format, textContent: s.format })); f.value = s.format; }
}

async function begin() {
  try {
    const models = (await get('/v1/models')).data, m = models[0].meta; model = models[0].id; $('model').textContent = model; $('light').className = 'up';
    const fact = (k, v) => [el('dt', { textContent: k }), el('dd', { textContent: v })];
    $('facts').replaceChildren(...fact('weights', `${(m.n_params / 1e6).toFixed(0)} M · ${m.ftype}`), ...fact('context', m.n_ctx.toLocaleString()), ...fact('adapters', (models.length - 1).toLocaleString()));
    for (const a of models.slice(1, 200)) $('adapter').append(el('option', { value: a.root, textContent: a.root }));
    const props = await get('/props');
    for (const f of props.formats || []) $('format').append(el('option', { value: f, textContent: f }));
    settle(props.ui_settings || {});
    const tab = location.hash.slice(1); if (tabs.some(b => b.dataset.tab === tab)) show(tab);
    $('text').focus();
  } catch (e) { $('model').textContent = e.message; $('light').className = ''; setTimeout(begin, 1000); }
}
begin();
