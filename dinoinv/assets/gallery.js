// The browser of reconstructions, the same on a page and in a notebook.
//
// dinoinvGallery(host, shell, data, pictures) fills the element `host`.
//   shell     its style and its controls, as HTML
//   data      what `Gallery._data` makes: the samples with their scores, and the words around them
//   pictures  (index of a sample, small) → a promise of {key: address}; small ones are for the grid
//
// stage.js stands above this in the same module. Both are part of a page as they are, so they must not hold the end
// tag of a script.

const VIEWS = { wipe: 'wipe', hover: 'hover', flicker: 'flicker', side: 'side by side', error: 'error map' }
const ENDLESS = 1e3 // stands for the PSNR of a picture without any error

// ---- pictures ----

// The pictures of a page stand in it as figures. They are taken over, so that they are not there twice.
function picturesOfPage(host) {
  const figures = [...host.querySelectorAll('figure')].map(figure =>
    Object.fromEntries([...figure.querySelectorAll('img')].map(img => [img.dataset.key, img.src])))
  host.replaceChildren()
  return async index => figures[index]
}

// The error map of a picture as an address
async function errorMap(address, target, colours, top) {
  const [a, b] = await Promise.all([target, address].map(pixels))
  return canvasOf(errorOf(a, b, colours, top)).toDataURL()
}

// ---- the gallery ----

function dinoinvGallery(host, shell, data, pictures) {
  const root = host.attachShadow({ mode: 'open' })
  root.innerHTML = shell
  const $ = selector => root.querySelector(selector)
  const $$ = selector => [...root.querySelectorAll(selector)]

  // -- words and measures

  const all = data.samples
  const colours = data.colours.map(c => parseInt(c, 16))
  const label = key => data.names[key] ?? key.replace('_', ' ')
  const scores = (sample, key) => sample.scores[key] ?? [NaN, NaN, NaN]
  const psnr = (sample, key) => scores(sample, key)[0] ?? ENDLESS
  const db = value => value === null || value === ENDLESS ? '∞' : value.toFixed(2)
  const signed = value => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)} dB`
  const gain = sample => psnr(sample, 'run') - psnr(sample, data.probe)
  const ahead = sample => psnr(sample, 'run') - psnr(sample, 'other')
  // name, value (the larger the better), how it is written
  const measures = {
    psnr: ['PSNR', s => psnr(s, 'run'), s => `${db(psnr(s, 'run'))} dB`],
    ssim: ['SSIM', s => scores(s, 'run')[1], s => scores(s, 'run')[1].toFixed(3)],
    mae: ['MAE', s => -scores(s, 'run')[2], s => scores(s, 'run')[2].toFixed(4)],
    gain: [`gain over the ${label(data.probe)}`, gain, s => signed(gain(s))],
    ...data.pictures.includes('other') && { ahead: ['gain over the other run', ahead, s => signed(ahead(s))] },
    name: ['name', null, s => `${db(psnr(s, 'run'))} dB`],
  }

  // A sample's name is `texture__photo__row_column`. The texture is said elsewhere; a photo of one patch needs no place.
  const parts = name => name.match(/^.+?__(.+)__(\d+)_(\d+)$/) ?? [name, name, '0', '0']
  const whole = all.every(s => /__0_0$/.test(s.name) || !s.name.includes('__'))
  const short = ({ name }) => {
    const [, photo, row, column] = parts(name)
    return whole ? photo : `${photo}, patch ${+row + 1}·${+column + 1}`
  }

  // -- what is shown

  const start = { sort: 'psnr', best: '', view: 'wipe', left: 'target', right: 'run', group: '', find: '',
    at: 50, zoom: 1, x: 0, y: 0 }
  const state = { ...start }
  let shown = all, now = all[0], loaded = null, addresses = {}, swapped = false, timer

  // -- the grid: a small picture is half target, half reconstruction, and the border follows the pointer

  const near = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) fillThumb(all[entry.target.dataset.index])
  }, { rootMargin: '200px' })

  async function fillThumb(sample) {
    near.unobserve(sample.thumb)
    const found = await pictures(all.indexOf(sample), true).catch(() => ({}))
    const images = ['target', 'run'].filter(k => found[k]).map(k => el('img', { src: found[k], alt: '' }))
    sample.thumb.firstChild.replaceChildren(...images)
  }

  all.forEach((sample, index) => {
    sample.caption = el('small')
    const props = { className: 'thumb', type: 'button', title: sample.name, onclick: () => { tell(''); open(sample, true) } }
    sample.thumb = el('button', props, el('span'), sample.caption)
    sample.thumb.dataset.index = index
    sample.thumb.setAttribute('aria-label', `${short(sample)}, PSNR ${db(psnr(sample, 'run'))} dB`)
    const { style } = sample.thumb
    sample.thumb.onpointermove = e => style.setProperty('--at', 100*e.offsetX/sample.thumb.clientWidth)
    sample.thumb.onpointerleave = () => style.removeProperty('--at')
    near.observe(sample.thumb)
  })

  function arrange(wanted) {
    const [, value, write] = measures[state.sort]
    const way = state.best ? -1 : 1
    const find = state.find.toLowerCase()
    const fits = s => (!state.group || s.group === state.group) && s.name.toLowerCase().includes(find)
    const compare = (a, b) => value && value(a) - value(b) || a.name.localeCompare(b.name)
    shown = all.filter(fits).sort((a, b) => way*compare(a, b))
    for (const s of shown) s.caption.textContent = write(s)
    $('.grid').replaceChildren(...shown.map(s => s.thumb))
    const rest = data.total > all.length ? ` (of ${data.total} in the results)` : ''
    $('.count').textContent = shown.length ? `${shown.length} of ${all.length} samples${rest}` : 'nothing fits'
    $('.turn').textContent = (value ? ['worst first', 'best first'] : ['A – Z', 'Z – A'])[state.best ? 1 : 0]
    $('.main').hidden = $('.note').hidden = !shown.length
    $('.none').hidden = shown.length > 0
    $('.none span').textContent = `No sample ${state.group ? `of ${state.group} ` : ''}has “${state.find}” in its name.`
    if (!shown.length) return
    drawCurve()
    open(shown.includes(wanted) ? wanted : shown[0])
  }

  // -- the curve above the slider: the measure that sorts, over the samples in their order

  function drawCurve() {
    const [name, value] = measures[state.sort][1] ? measures[state.sort] : measures.psnr
    const values = shown.map(value)
    const base = name === 'PSNR' ? shown.map(s => psnr(s, data.probe)) : []
    const finite = [...values, ...base].filter(v => Math.abs(v) < ENDLESS/2)
    const low = Math.min(...finite), high = Math.max(...finite, low + 1e-9)
    const x = i => 100*i/Math.max(shown.length - 1, 1)
    const y = v => 95 - 90*(clamp(v, low, high) - low)/(high - low)
    const path = line => line.map((v, i) => `${i ? 'L' : 'M'}${x(i).toFixed(2)} ${y(v).toFixed(1)}`).join('')
    $('.curve').setAttribute('d', path(values))
    $('.base').setAttribute('d', path(base))
    $('.sample').max = shown.length - 1
    $('.what').textContent = `${name} in this order${base.length ? `; dashed: the ${label(data.probe)}` : ''}`
  }

  function scrub(e) {
    if (!e.buttons) return
    const box = $('.plot').getBoundingClientRect()
    const at = (e.clientX - box.left)/box.width*(shown.length - 1)
    open(shown[clamp(Math.round(at), 0, shown.length - 1)])
  }

  $('.plot').onpointermove = scrub
  $('.plot').onpointerdown = e => {
    e.preventDefault()
    $('.sample').focus({ preventScroll: true })
    $('.plot').setPointerCapture(e.pointerId)
    scrub(e)
  }

  // -- one sample

  function step(by) {
    const next = shown[shown.indexOf(now) + by]
    if (next) open(next)
    tell('')
  }

  async function open(sample, jump) {
    now = sample
    mark()
    writeFacts()
    if (jump) bringUp()
    remember()
    $('.stage').setAttribute('aria-busy', 'true')
    $('.trouble').hidden = true
    try {
      const found = await pictures(all.indexOf(sample))
      if (now !== sample) return // another one was opened meanwhile
      addresses = { ...found }
      loaded = sample
      await draw()
      const next = shown[shown.indexOf(sample) + 1]
      if (next) pictures(all.indexOf(next)).catch(() => {})
    } catch (error) {
      if (now === sample) complain(error)
    }
  }

  function tell(words) { // what can't be done, until another sample is opened
    $('.news').textContent = words
    $('.news').hidden = !words
  }

  function complain(error) {
    $('.trouble').textContent = error.message ?? error
    $('.trouble').hidden = false
  }

  function mark() {
    const index = shown.indexOf(now), { thumb } = now, grid = $('.grid')
    for (const s of shown) {
      s.thumb.tabIndex = s === now ? 0 : -1
      if (s === now) s.thumb.setAttribute('aria-current', 'true')
      else s.thumb.removeAttribute('aria-current')
    }
    if (root.activeElement?.matches('.thumb')) thumb.focus({ preventScroll: true })
    const above = thumb.offsetTop < grid.scrollTop
    const below = thumb.offsetTop + thumb.offsetHeight > grid.scrollTop + grid.clientHeight
    if (above || below) grid.scrollTop = thumb.offsetTop - grid.clientHeight/3
    for (const k of ['x1', 'x2']) $('.plot line').setAttribute(k, 100*index/Math.max(shown.length - 1, 1))
    $('.sample').value = index
    $('.sample').setAttribute('aria-valuetext', short(now))
    $('.prev').disabled = !index
    $('.next').disabled = index === shown.length - 1
  }

  function writeFacts() {
    const cells = values => values.map(v => el('td', { textContent: v }))
    const head = ['', 'PSNR dB', 'SSIM', 'MAE'].map(t => el(t ? 'th' : 'td', { textContent: t }))
    const rows = Object.entries(now.scores).map(([key, [p, ssim, mae]]) =>
      el('tr', { className: ['run', 'other'].includes(key) ? 'run' : '' },
        el('th', { scope: 'row', textContent: label(key) }), ...cells([db(p), ssim.toFixed(3), mae.toFixed(4)])))
    const place = `${shown.indexOf(now) + 1} of ${shown.length} in this order`
    const rank = `PSNR rank ${now.rank} of ${data.total}`
    $('.facts').replaceChildren(
      el('h3', { textContent: short(now), title: now.name }),
      el('p', { className: 'soft', textContent: `${now.group} · ${now.width} × ${now.height} px` }),
      el('p', { textContent: `${place} · ${rank} · ${signed(gain(now))} over the ${label(data.probe)}` }),
      el('table', {}, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)))
  }

  function bringUp() {
    const { top } = $('.main').getBoundingClientRect()
    if (top < 0 || top > innerHeight - 150) $('.main').scrollIntoView({ block: 'start' })
  }

  // -- the stage: whatever the view, a left and a right picture with one zoom and one place

  async function addressOf(key) {
    if (state.view !== 'error') return addresses[key]
    if (key === 'target' || !addresses[key]) return undefined
    const name = `error of ${key}`
    addresses[name] ??= errorMap(addresses[key], addresses.target, colours, data.top)
    return addresses[name]
  }

  async function draw() {
    const sample = loaded, view = state.view, keys = [state.left, state.right]
    if (!sample || sample !== now) return // its pictures are on their way
    const both = await Promise.all(keys.map(addressOf))
    if (now !== sample || view !== state.view) return
    if (view === 'error' && keys[0] === keys[1]) both[0] = undefined
    const two = view === 'side' || view === 'error' && both[0] && both[1]
    for (const [i, side] of ['left', 'right'].entries()) drawPane($(`.${side}`), keys[i], both[i], i)
    place(stage, state, sample.width/sample.height, two)
    stage.setAttribute('aria-busy', 'false')
    drawControls()
  }

  function drawPane(pane, key, address, i) {
    const img = pane.querySelector('img')
    const one = ['hover', 'flicker'].includes(state.view)
    const front = state.view === 'hover' ? (swapped ? 0 : 1) : (swapped ? 1 : 0)
    const what = state.view === 'error' ? `error of ${label(key)}` : label(key)
    pane.hidden = !address || one && i !== front
    if (address && img.src !== address) img.src = address
    img.alt = `${what}, ${short(now)}`
    pane.querySelector('.tag').textContent = what
  }

  function drawControls() {
    const { view } = state
    $('.handle').hidden = $('.at').hidden = view !== 'wipe'
    $('.legend').hidden = view !== 'error'
    $('.hint').textContent = `point at the picture, or hold it, to see: ${label(state.left)}`
    $('.hint').hidden = view !== 'hover'
    $('.at input').value = state.at
    for (const b of $$('.views button')) b.setAttribute('aria-pressed', b.value === view)
    $('.zoom button:nth-child(2)').textContent = `${+state.zoom.toFixed(1)}×`
  }

  function change(what) {
    Object.assign(state, what)
    draw().catch(complain)
    remember()
  }

  function swap(on = !swapped) {
    swapped = on
    draw().catch(complain)
  }

  function look(view) {
    clearInterval(timer)
    swapped = false
    if (view === 'flicker') timer = setInterval(() => host.isConnected ? swap() : clearInterval(timer), 700)
    change({ view })
  }

  // -- hands: what they do to the stage, see stage.js

  const stage = $('.stage')
  const { zoomTo, pan } = hands(stage, state, change)
  stage.onpointerenter = () => { if (state.view === 'hover') swap(true) }
  stage.onpointerleave = () => { if (state.view === 'hover') swap(false) }

  // -- keys: those of the gallery that has the focus; if nothing has it, of the one under the pointer,
  //    or of the one that has a page of its own

  const pans = { ArrowLeft: [.1, 0], ArrowRight: [-.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1] }
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    Home: () => open(shown[0]), End: () => open(shown.at(-1)),
    '+': () => zoomTo(state.zoom*1.5), '=': () => zoomTo(state.zoom*1.5), '-': () => zoomTo(state.zoom/1.5),
    0: () => zoomTo(1),
  }

  function actionOf(e) {
    const target = e.composedPath()[0]
    if (e.ctrlKey || e.metaKey || e.altKey || target.matches?.('input[type=search], select')) return null
    if (target.matches?.('input[type=range]') && /^(Arrow|Home|End|Page)/.test(e.key)) return null
    if (e.shiftKey && pans[e.key]) return () => pan(...pans[e.key])
    const swaps = ['hover', 'flicker'].includes(state.view) && !target.matches?.('button:not(.views button)')
    if (e.key === ' ') return swaps ? () => swap() : null
    const view = Object.keys(VIEWS)[e.key - 1]
    return view ? () => look(view) : keys[e.key]
  }

  // Escape gives the keys back to what is around the gallery, such as the cell of a notebook.
  // Jupyter takes no keys from a gallery but those with Ctrl or ⌘: Ctrl+S saves.
  function leave() {
    root.activeElement?.blur()
    host.parentElement.closest('[tabindex]')?.focus({ preventScroll: true })
  }
  addEventListener('keydown', function around(e) {
    if (!host.isConnected) removeEventListener('keydown', around, true)
    host.toggleAttribute('data-lm-suppress-shortcuts', !(e.ctrlKey || e.metaKey))
  }, true)

  function onKey(e) {
    if (e.key === 'Escape' && !document.fullscreenElement) return leave()
    const act = shown.length && actionOf(e)
    if (!act) return
    act()
    e.preventDefault()
    e.stopPropagation()
  }

  $('.app').onkeydown = onKey
  document.addEventListener('keydown', function unfocused(e) {
    if (!host.isConnected) document.removeEventListener('keydown', unfocused)
    else if (document.activeElement === document.body && (host.dataset.alone || host.matches(':hover'))) onKey(e)
  })

  // -- links: on a page of its own, the address says what is shown

  let later
  function remember() {
    if (!host.dataset.alone) return
    clearTimeout(later)
    later = setTimeout(() => {
      const changed = Object.entries(state).filter(([k, v]) => v !== start[k])
      const round = v => typeof v === 'number' ? +v.toFixed(3) : v
      const words = new URLSearchParams([['sample', now.name], ...changed.map(([k, v]) => [k, round(v)])])
      history.replaceState(null, '', `#${words}`)
    }, 200)
  }

  function recall() {
    const words = Object.fromEntries(new URLSearchParams(host.dataset.alone ? location.hash.slice(1) : ''))
    Object.assign(state, start)
    for (const [k, v] of Object.entries(words)) {
      if (k in start) state[k] = typeof start[k] === 'number' ? +v || 0 : v
    }
    if (!measures[state.sort]) state.sort = start.sort
    if (!VIEWS[state.view]) state.view = start.view
    for (const side of ['left', 'right']) if (!data.pictures.includes(state[side])) state[side] = start[side]
    state.zoom = clamp(state.zoom, 1, 12)
    $('.sort').value = state.sort
    $('.group').value = state.group
    $('.find').value = state.find
    $('.l').value = state.left
    $('.r').value = state.right
    const wanted = all.find(s => s.name === words.sample)
    arrange(wanted)
    tell(words.sample && !wanted ? `The link leads to ${words.sample}, which is not on this page. Here is the first sample instead.` : '')
    look(state.view)
  }

  addEventListener('hashchange', () => { if (host.isConnected && host.dataset.alone) recall() })

  // -- controls

  const option = (value, textContent) => el('option', { value, textContent })
  for (const [k, name] of Object.entries(VIEWS)) {
    $('.views').append(el('button', { type: 'button', value: k, textContent: name, onclick: () => look(k) }))
  }
  $('.sort').append(...Object.entries(measures).map(([k, [name]]) => option(k, name)))
  $('.group').append(...[...new Set(all.map(s => s.group))].sort().map(g => option(g, g)))
  for (const [selector, side] of [['.l', 'left'], ['.r', 'right']]) {
    $(selector).append(...data.pictures.map(k => option(k, label(k).replace('reconstruction: ', ''))))
    $(selector).onchange = e => change({ [side]: e.target.value })
  }
  const rearrange = what => {
    Object.assign(state, what)
    arrange()
  }
  $('.sort').onchange = e => rearrange({ sort: e.target.value })
  $('.turn').onclick = () => rearrange({ best: state.best ? '' : 'yes' })
  $('.group').onchange = e => rearrange({ group: e.target.value })
  $('.none button').onclick = () => {
    $('.find').value = $('.group').value = ''
    rearrange({ find: '', group: '' })
    $('.find').focus()
  }
  $('.find').oninput = e => rearrange({ find: e.target.value })
  $('.sample').oninput = e => open(shown[+e.target.value])
  $('.prev').onclick = () => step(-1)
  $('.next').onclick = () => step(1)
  $('.at input').oninput = e => change({ at: +e.target.value })
  $$('.zoom button').forEach((b, i) => { b.onclick = () => zoomTo([state.zoom/1.5, 1, state.zoom*1.5][i]) })
  $('.full').hidden = !document.fullscreenEnabled
  $('.full').onclick = () => {
    if (document.fullscreenElement) document.exitFullscreen()
    else $('.app').requestFullscreen().catch(() => tell('This browser refuses the full screen here.'))
  }

  followTheme(host)
  new ResizeObserver(() => $('.app').classList.toggle('small', host.clientWidth < 620)).observe(host)
  $('.app').classList.toggle('widget', !host.dataset.gallery)
  $('.app').classList.toggle('few', all.length <= 60 && !!host.dataset.gallery)

  legend($('.legend'), data.colours, data.top)
  $('.made').textContent = data.made
  $('.control[role=note]').textContent = data.control
  $('.control[role=note]').hidden = !data.control
  $('.note').textContent = data.note
  recall()
}
