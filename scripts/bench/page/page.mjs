// Opens the server's page in headless Chromium, uses it as a person would, and takes pictures of it.
//
//   node page.mjs URL FOLDER [README.png]
//
// One line per check; the exit code is the number of failed ones. CHROMIUM names the browser (default: chromium).
import { chromium } from 'playwright-core';
import { execFileSync } from 'node:child_process';

const [url, folder, readme] = process.argv.slice(2);
const program = process.env.CHROMIUM || execFileSync('sh', ['-c', 'command -v chromium || command -v chromium-browser']).toString().trim();
const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox', '--force-color-profile=srgb'] });
let failed = 0;
const check = (name, ok, note = '') => { console.log(`${ok ? 'pass' : 'FAIL'}\t${name}\t${note}`); if (!ok) failed++; };
const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, deviceScaleFactor: 1.5, colorScheme: 'light' });
const page = await context.newPage();
const problems = [], hosts = new Set();
page.on('console', m => { if (m.type() === 'error') problems.push(m.text()); });
page.on('pageerror', e => problems.push(String(e)));
page.on('request', r => hosts.add(new URL(r.url()).host));

const started = Date.now();
await page.goto(url); await page.waitForSelector('#light.up');
check('ready', true, `${Date.now() - started} ms to a usable page`);

async function ask(text, adapter) {
  await page.selectOption('#adapter', adapter);
  await page.evaluate(() => {
    window.sizes = new Set();
    new MutationObserver(() => { const all = document.querySelectorAll('.say.bot .text'); window.sizes.add(all[all.length - 1]?.textContent.length); })
      .observe(document.getElementById('log'), { childList: true, subtree: true, characterData: true });
  });
  const before = await page.locator('.say.bot').count();
  await page.fill('#text', text); await page.keyboard.press('Enter');
  await page.waitForFunction(n => document.querySelectorAll('.say.bot').length > n && !document.querySelector('.wait'), before, { timeout: 60_000 });
  return { steps: await page.evaluate(() => window.sizes.size), said: (await page.locator('.say.bot').last().locator('.text').textContent()).length };
}
await page.click('#more'); await page.fill('#most', '90'); await page.click('#more');
const first = await ask('I have not got my new card yet. When will it arrive?', 'auto');
check('an answer comes as it is written', first.steps > 5 && first.said > 10, `${first.steps} steps, ${first.said} characters`);
const last = () => page.locator('.say.bot').last();
const chips = await last().locator('.chip').allTextContents();
check('the answer tells its adapters', chips.length > 0, chips.join(', '));
await last().locator('button', { hasText: 'Why?' }).click();
const bars = await last().locator('.why .bar').count();
check('and how they were chosen', bars > 1, `${bars} candidates`);
const second = await ask('Name three colours of the sea.', 'none');
check('the plain model answers too', second.said > 0 && (await last().locator('.chip').textContent()) === 'base model');
await page.locator('.say.bot').first().locator('button', { hasText: 'Good' }).click();
await page.waitForFunction(() => document.body.textContent.includes('noted'));
check('feedback is taken', true);
const shot = (name, path) => page.screenshot({ path: path || `${folder}/${name}.png` });
await shot('chat-light');
if (readme) await shot('', readme);

await page.click('[data-tab=adapters]'); await page.waitForSelector('.grid .card');
const all = await page.locator('.grid .card').count();
await page.fill('#find', 'recipe'); await page.waitForFunction(n => { const c = document.querySelectorAll('.grid .card').length; return c > 0 && c < n; }, all);
check('the search narrows the list', true, `${all} to ${await page.locator('.grid .card').count()}`);
await page.fill('#find', ''); await page.waitForFunction(n => document.querySelectorAll('.grid .card').length === n, all);
await page.fill('#question', 'How long does pasta have to boil?'); await page.click('#try button'); await page.waitForSelector('#verdict .bar');
check('the router can be tried', true, (await page.locator('#verdict .chip').allTextContents()).join(', '));
await shot('adapters-light');
await page.click('[data-tab=board]'); await page.waitForSelector('figure svg');
check('the dashboard plots', (await page.locator('figure').count()) === 6 && (await page.locator('#cards .card').count()) === 8);
await page.waitForTimeout(3500); await shot('board-light');
for (const scheme of ['dark']) {
  await page.emulateMedia({ colorScheme: scheme });
  for (const tab of ['chat', 'adapters', 'board']) { await page.click(`[data-tab=${tab}]`); await page.waitForTimeout(300); await shot(`${tab}-${scheme}`); }
}
await page.emulateMedia({ colorScheme: 'light' }); await page.setViewportSize({ width: 400, height: 760 }); await page.click('[data-tab=chat]');
const wide = await page.evaluate(() => document.documentElement.scrollWidth);
check('it fits a narrow screen', wide <= 400, `${wide} px`); await shot('chat-narrow');
check('nothing was asked of other hosts', hosts.size === 1, [...hosts].join(', '));
check('no errors in the console', problems.length === 0, problems.join('; '));
await browser.close();
process.exit(failed);
