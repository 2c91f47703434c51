// The page `try`: a photo → tokens → what three readers make of them, in this tab. Nothing is sent anywhere.

import { canvasOf, clamp, el, errorOf, followTheme, hands, legend, pixels, place } from './stage.js'
import { about, addressOf, networksOf } from './networks.js'
import { componentsOf, pcaColours, prepare, rebuilt, scoresOf } from './numbers.js'

const VIEWS = { wipe: 'wipe', side: 'side by side', error: 'error map' }
const ENCODERS = { mini: 'mini', control: 'random weights' }
const READERS = { decoder: 'decoder', scaled: 'scaled probe', linear: 'linear probe' } // the best first
const ACTS = { off: 'turns it off', swap: 'swaps two' }
const MOST = 50e6 // pixels: larger photos need more memory than a phone has
const NO_WASM = 'This browser has no WebAssembly, so it cannot run the networks. Below is what they make of one texture.'
const CELL = 12 // canvas pixels of a token in the map
const { size, unit } = about
const grid = size/unit, places = grid**2
const { channels } = about.encoders.mini
const steps = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96].filter(k => k < channels).concat(channels) // kept components

const host = document.querySelector('#try')
const root = host.attachShadow({ mode: 'open' })
root.innerHTML = await (await fetch(addressOf('app.html'))).text()
const styles = ['gallery.css', 'app.css'].map(name => el('link', { rel: 'stylesheet', href: addressOf(name) }))
const styled = styles.map(link => new Promise(done => { link.onload = link.onerror = done }))
root.prepend(...styles)
await Promise.all(styled)
const $ = selector => root.querySelector(selector)

// ---- what is shown ----

const unchanged = () => Int32Array.from({ length: places }, (_, i) => i)
const state = { view: 'wipe', at: 50, zoom: 1, x: 0, y: 0, encoder: 'mini', reader: 'decoder', act: 'off',
  keep: channels, order: unchanged() }
let photo = null   // { img, name, width, height }
let target = null  // { image, values, prepared, components: encoder → components of its tokens }
let pictures = {}  // reader → ImageData
let scores = {}    // encoder → reader → { psnr, ssim }, all for the same tokens kept
let cursor = -1, picked = -1

const changedTokens = () => state.order.filter((from, i) => from !== i).length

function valuesOf({ data }) { // as the networks take them
  const n = data.length/4
  return Float32Array.from({ length: 3*n }, (_, i) => data[4*(i % n) + Math.floor(i/n)]/255)
}

function imageOf(values) {
  const image = new ImageData(size, size), n = size*size
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < 3; c++) image.data[4*i + c] = Math.round(255*values[c*n + i])
    image.data[4*i + 3] = 255
  }
  return image
}

function setTarget(image) {
  const values = valuesOf(image)
  target = { image, values, prepared: prepare(values, size), components: {} }
  scores = {}
}

// ---- a photo, and the square of it that is read ----

async function open(address, name) {
  const img = new Image()
  img.src = address
  await new Promise((done, failed) => {
    img.onload = done
    img.onerror = () => failed(new Error(`${name} is no picture that this browser can read.`))
  })
  const { naturalWidth: width, naturalHeight: height } = img
  if (width*height > MOST) {
    throw new Error(`${name} has ${Math.round(width*height/1e6)} megapixels; the page takes ${MOST/1e6} at most. Make it smaller first.`)
  }
  if (Math.min(width, height) < size) {
    throw new Error(`${name} has ${width} × ${height} px; the page reads squares of ${size} px, so it takes pictures at least that large.`)
  }
  photo = { img, name, width, height }
  Object.assign(state, { keep: channels, order: unchanged(), zoom: 1, x: 0, y: 0 })
  $('.crop input').value = 0
  crop()
}

// The centre of the photo. At the left end of the slider its pixels are taken as they are; further right it is reduced.
function crop() {
  const { img, name, width, height } = photo
  const most = Math.min(width, height)
  const side = Math.round(size*(most/size)**($('.crop input').value/100))
  const canvas = el('canvas', { width: size, height: size })
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.fillStyle = '#fff' // what is transparent lies on white
  context.fillRect(0, 0, size, size)
  context.imageSmoothingQuality = 'high'
  context.drawImage(img, Math.floor((width - side)/2), Math.floor((height - side)/2), side, side, 0, 0, size, size)
  setTarget(context.getImageData(0, 0, size, size))
  const reduced = side === size ? 'pixel by pixel' : `reduced ${(side/size).toFixed(1)} times`
  $('.cropped').textContent = `${side} × ${side} px, ${reduced}`
  $('.crop input').disabled = most === size
  $('.name').textContent = `${name}: the centre of ${width} × ${height} px`
  update()
}

async function take(address, name) {
  $('.trouble').hidden = true
  for (const b of $('.samples').children) b.ariaPressed = b.value === name
  await open(address, name).catch(complain)
}

async function takeFile(file) {
  if (!file) return
  const address = URL.createObjectURL(file)
  await take(address, file.name)
  setTimeout(() => URL.revokeObjectURL(address), 60_000)
}

function complain(error) {
  $('.trouble').textContent = error.message ?? error
  $('.trouble').hidden = false
}

// ---- from tokens to pictures and scores; what changes meanwhile is drawn afterwards ----

let busy = false, again = false
async function update() {
  again = true
  if (busy) return
  busy = true
  while (again) {
    again = false
    try {
      await redraw()
      $('.stage').ariaBusy = again
    } catch (error) { // the picture stays pale: it is not of what was chosen
      complain(error)
    }
  }
  busy = false
}

async function redraw() {
  if (typeof WebAssembly !== 'object') throw new Error(NO_WASM)
  $('.stage').ariaBusy = true
  $('.trouble').hidden = true
  const now = target, { encoder, keep, order } = state
  const networks = await networksOf(encoder, waiting)
  $('.waiting').hidden = true
  const begun = performance.now()
  if (!now.components[encoder]) {
    const tokens = await networks.encode(now.values)
    now.components[encoder] = componentsOf(tokens, tokens.length/places)
  }
  const components = now.components[encoder]
  const tokens = rebuilt(components, keep, order)
  const found = {}
  for (const reader of Object.keys(READERS)) found[reader] = await networks.read(reader, tokens)
  if (now !== target) return // another photo was opened meanwhile
  const mapped = run => Object.fromEntries(Object.entries(found).map(([reader, picture]) => [reader, run(picture)]))
  pictures = mapped(imageOf)
  draw()
  host.dataset.took = Math.round(performance.now() - begun)
  await new Promise(done => setTimeout(done)) // the picture is seen before its scores are computed
  if (again) return
  const key = `${keep} ${order}`
  if (scores.key !== key) scores = { key }
  scores[encoder] = mapped(picture => scoresOf(picture, now.prepared))
  drawScores()
}

function waiting(come, total) {
  const mb = bytes => (bytes/1e6).toFixed(1)
  $('.waiting').hidden = false
  $('.waiting progress').value = come/total
  $('.waiting span').textContent = come < total
    ? `Loading the networks, ${mb(come)} of ${mb(total)} MB; once, and your photo stays here` : 'Starting the networks'
}

// ---- drawing ----

const colours = about.colours.map(c => parseInt(c, 16))

function draw() {
  const picture = pictures[state.reader]
  const shown = state.view === 'error' ? errorOf(target.image, picture, colours, about.top) : picture
  const tags = ['target', (state.view === 'error' ? 'error of the ' : '') + READERS[state.reader]]
  for (const [i, image] of [target.image, shown].entries()) {
    const pane = $(i ? '.right' : '.left')
    canvasOf(image, pane.querySelector('canvas')).ariaLabel = tags[i]
    pane.querySelector('.tag').textContent = tags[i]
  }
  arrange()
  drawScores()
  drawMap()
}

function arrange() {
  const { view } = state
  place($('.stage'), state, 1, view === 'side')
  $('.left').hidden = view === 'error'
  $('.handle').hidden = $('.at').hidden = view !== 'wipe'
  $('.legend').hidden = view !== 'error'
  $('.at input').value = state.at
}

function drawScores() {
  const encoders = Object.keys(ENCODERS)
  const head = encoders.map(k => el('th', { scope: 'colgroup', colSpan: 2, textContent: ENCODERS[k] }))
  const units = encoders.flatMap(() => ['PSNR dB', 'SSIM']).map(textContent => el('th', { scope: 'col', textContent }))
  $('thead').replaceChildren(el('tr', {}, el('th', {}), ...head), el('tr', {}, el('th', {}), ...units))
  const rows = Object.entries(READERS).map(([reader, name]) => {
    const cells = encoders.flatMap(encoder => {
      const row = scores[encoder]?.[reader]
      const className = encoder === state.encoder && reader === state.reader ? 'now' : ''
      return (row ? [row.psnr.toFixed(2), row.ssim.toFixed(3)] : ['–', '–']).map(textContent => el('td', { className, textContent }))
    })
    return el('tr', {}, el('th', { scope: 'row', textContent: name }), ...cells)
  })
  $('tbody').replaceChildren(...rows)
}

function drawMap() {
  const components = target.components[state.encoder]
  const map = $('.map'), side = grid*CELL, context = map.getContext('2d')
  if (map.width !== side) map.width = map.height = side
  context.clearRect(0, 0, side, side)
  $('.begin').hidden = !!components
  if (!components) return
  const tokens = components.colours ??= pcaColours(components)
  const box = i => [i % grid*CELL, Math.floor(i/grid)*CELL]
  state.order.forEach((from, i) => {
    const [x, y] = box(i)
    context.fillStyle = from < 0 ? '#000' : `rgb(${tokens[from].map(v => Math.round(255*v))})`
    context.fillRect(x, y, CELL, CELL)
    context.strokeStyle = '#fff'
    if (from < 0) context.stroke(new Path2D(`M${x + 3} ${y + 3}l6 6m0 -6l-6 6`))
  })
  const framed = root.activeElement === map && map.matches(':focus-visible') ? [cursor, picked] : [picked]
  for (const i of framed.filter(i => i >= 0)) {
    const [x, y] = box(i)
    context.lineWidth = 2
    context.strokeStyle = i === picked ? '#fff' : '#000'
    context.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2)
    context.lineWidth = 1
  }
  $('.keep').value = steps.indexOf(state.keep)
  $('.kept').textContent = `${state.keep} of ${channels}`
  const n = changedTokens()
  $('.told').textContent = n ? `${n} of ${places} tokens are changed.` : ''
  $('.reset').disabled = !n && state.keep === channels
}

// ---- controls ----

function change(what) {
  Object.assign(state, what)
  if ('view' in what || 'reader' in what) draw()
  else arrange()
  press()
}

function choices(selector, key, words, then) {
  const buttons = Object.entries(words).map(([value, textContent]) => el('button', { type: 'button', value, textContent,
    onclick: () => { then({ [key]: value }); press() } }))
  $(selector).append(...buttons)
}

function press() {
  for (const [selector, key] of [['.views', 'view'], ['.encoders', 'encoder'], ['.readers', 'reader'], ['.acts', 'act']]) {
    for (const b of $(selector).querySelectorAll('button')) b.ariaPressed = b.value === state[key]
  }
}

function edit(what) {
  Object.assign(state, what)
  update()
}

choices('.views', 'view', VIEWS, change)
choices('.encoders', 'encoder', ENCODERS, edit)
choices('.readers', 'reader', READERS, change)
choices('.acts', 'act', ACTS, what => { Object.assign(state, what); picked = -1; drawMap() })

$('.choose').onclick = () => $('.file').click()
$('.file').onchange = e => { takeFile(e.target.files[0]); e.target.value = '' }
for (const name of about.samples) {
  const img = el('img', { src: addressOf(`${name}-small.webp`), alt: '' })
  const onclick = () => take(addressOf(`${name}.webp`), name)
  $('.samples').append(el('button', { type: 'button', value: name, title: name, ariaLabel: name, onclick }, img))
}
$('.at input').oninput = e => change({ at: +e.target.value })
$('.crop input').oninput = crop
$('.keep').oninput = e => edit({ keep: steps[e.target.value] })
$('.reset').onclick = () => edit({ keep: channels, order: unchanged() })
$('.begin').onclick = update
const { zoomTo, pan } = hands($('.stage'), state, change)

document.addEventListener('paste', e => takeFile([...e.clipboardData.files][0]))
addEventListener('dragover', e => { e.preventDefault(); $('.app').classList.add('over') })
addEventListener('dragleave', e => { if (!e.relatedTarget) $('.app').classList.remove('over') })
addEventListener('drop', e => {
  e.preventDefault()
  $('.app').classList.remove('over')
  takeFile(e.dataTransfer.files[0])
})

// -- the map of tokens: a click, a stroke, or arrows and Enter

function touch(i, off) {
  const order = state.order.slice()
  if (state.act === 'off') order[i] = off ? -1 : i
  else if (picked < 0) picked = i
  else {
    [order[i], order[picked]] = [order[picked], order[i]]
    picked = -1
  }
  edit({ order })
  drawMap()
}

function placeOf(e) {
  const box = $('.map').getBoundingClientRect()
  const at = (client, from, length) => clamp(Math.floor((client - from)/length*grid), 0, grid - 1)
  return at(e.clientY, box.top, box.height)*grid + at(e.clientX, box.left, box.width)
}

let stroke // whether it turns tokens off
$('.map').onpointerdown = e => {
  cursor = placeOf(e)
  stroke = state.order[cursor] >= 0
  $('.map').setPointerCapture(e.pointerId)
  touch(cursor, stroke)
}
$('.map').onpointermove = e => {
  const i = placeOf(e)
  if (!e.buttons || state.act !== 'off' || i === cursor) return
  cursor = i
  touch(i, stroke)
}
$('.map').onfocus = $('.map').onblur = () => { if (target) drawMap() }
$('.map').onkeydown = e => {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid, ArrowDown: grid }[e.key]
  if (by) cursor = clamp(cursor < 0 ? 0 : cursor + by, 0, places - 1)
  else if ([' ', 'Enter'].includes(e.key) && cursor >= 0) touch(cursor, state.order[cursor] >= 0)
  else return
  e.preventDefault()
  e.stopPropagation()
  drawMap()
}

const keys = { '+': () => zoomTo(state.zoom*1.5), '=': () => zoomTo(state.zoom*1.5), '-': () => zoomTo(state.zoom/1.5), 0: () => zoomTo(1) }
Object.keys(VIEWS).forEach((view, i) => { keys[i + 1] = () => change({ view }) })
const pans = { ArrowLeft: [.1, 0], ArrowRight: [-.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1] }
$('.app').onkeydown = e => {
  const act = e.shiftKey && pans[e.key] ? () => pan(...pans[e.key]) : keys[e.key]
  if (!act || e.ctrlKey || e.metaKey || e.altKey) return
  act()
  e.preventDefault()
}

// ---- at first: the first sample as Python made it, without a network ----

followTheme(host)
new ResizeObserver(() => $('.app').classList.toggle('small', host.clientWidth < 620)).observe(host)
$('.keep').max = steps.length - 1
legend($('.legend'), about.colours, about.top)
const { n, size: side } = about.fitted
const hashes = Object.entries(about.encoders).map(([key, { weights }]) => `${ENCODERS[key]} (weights ${weights})`)
$('.about').textContent = `Encoders: ${hashes.join(', ')}; layers: final. mini is a small DINOv2 of this project, not Meta's. ` +
  `All readers have learned from ${n} generated patches of ${side} px and have seen no photo. Computed by ${about.runtime}.`
const bytes = Object.values(about.encoders.mini.files).reduce((a, b) => a + b, about.wasm)
const [still, ...read] = await Promise.all(['target', ...Object.keys(READERS)].map(k => pixels(addressOf(`still-${k}.webp`))))
setTarget(still)
Object.keys(READERS).forEach((reader, i) => { pictures[reader] = read[i] })
scores = { key: `${channels} ${state.order}`, mini: about.still }
$('.name').textContent = `${about.samples[0]}: a generated texture`
$('.crop input').disabled = true
$('.begin').textContent = `Load the networks: ${(bytes/1e6).toFixed(0)} MB`
press()
draw()
if (typeof WebAssembly !== 'object') complain(NO_WASM)
host.dataset.ready = 'true'
