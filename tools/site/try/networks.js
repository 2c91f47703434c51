// The networks, run by onnxruntime in WebAssembly. Everything comes from the folder of this page, when it is asked for.

const here = name => new URL(name, import.meta.url).href
const WASM = 'ort-wasm-simd-threaded.wasm'

export const about = await (await fetch(here('about.json'))).json()
export const addressOf = here

// The bytes of a file; `heard` is told how many have come
async function bytesOf(name, heard) {
  const answer = await fetch(here(name))
  if (!answer.ok) throw new Error(`${name} did not come (${answer.status}). Load the page again.`)
  const reader = answer.body.getReader(), parts = []
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value)
    heard(part.value.length)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

let runtime // a promise of the module
function startRuntime(heard) {
  runtime ??= (async () => {
    const [ort, wasm] = await Promise.all([import('./ort.wasm.bundle.min.mjs'), bytesOf(WASM, heard)])
    ort.env.wasm.numThreads = 1
    ort.env.wasm.wasmBinary = wasm
    return ort
  })()
  runtime.catch(() => { runtime = undefined }) // it may be tried again
  return runtime
}

const loaded = new Map() // encoder → promise of its networks

async function load(key, progress) {
  const { files } = about.encoders[key]
  const sizes = [...Object.values(files), ...(runtime ? [] : [about.wasm])]
  const total = sizes.reduce((a, b) => a + b)
  let come = 0
  const heard = n => progress(come += n, total)
  const contents = Promise.all(Object.keys(files).map(name => bytesOf(`${name}.onnx`, heard)))
  const [ort, models] = await Promise.all([startRuntime(heard), contents])
  const sessions = []
  for (const model of models) sessions.push(await ort.InferenceSession.create(model)) // one after the other
  const [encoder, scaled, linear] = sessions
  const grid = about.size/about.unit

  async function run(session, input, output, values, shape) {
    const found = await session.run({ [input]: new ort.Tensor('float32', values, shape) })
    return found[output].data
  }

  return {
    encode: pixels => run(encoder, 'pixels', 'tokens', pixels, [1, 3, about.size, about.size]),
    read: async (reader, tokens) => {
      const session = { scaled, linear }[reader], shape = [1, tokens.length/grid**2, grid, grid]
      return (await run(session, 'features', 'picture', tokens, shape)).map(v => Math.max(0, Math.min(1, v)))
    },
  }
}

export function networksOf(key, progress) {
  if (!loaded.has(key)) {
    loaded.set(key, load(key, progress))
    loaded.get(key).catch(() => loaded.delete(key))
  }
  return loaded.get(key)
}
