"""What the page `try` of the site needs beside its HTML: readers fitted here, networks as ONNX files, samples, and the runtime from npm.

    python tools/try_page.py OUT    write the folder OUT; what was made before by the same code comes from build/try

Two encoders, `mini` and its control, are read by the same two closed forms: the linear probe and the scaled probe. Both are fitted on generated
textures, in seconds, so the page needs no training and no file of weights in the repository.
"""
import json, shutil, subprocess, sys, tarfile, tempfile, time
from pathlib import Path

import numpy as np, torch
from PIL import Image
from dinoinv.core import digest, replacing
from dinoinv.decoder import LinearProbe, ScaledProbe
from dinoinv.export import export_onnx
from dinoinv.features import load_encoder
from dinoinv.inference import ERROR_TOP, inferno, to_image
from dinoinv.photos import to_tensor
from dinoinv.scores import average, image_metrics
from dinoinv.textures import make_texture, sample_textures

root = Path(__file__).parent.parent
package,sources = root/'dinoinv',root/'tools/site/try'
RUNTIME = 'onnxruntime-web@1.30.0'
RUNTIME_FILES = 'ort.wasm.bundle.min.mjs','ort-wasm-simd-threaded.wasm'
SIZE = 252           # px, what the networks take
ENCODERS = {'mini': 'mini', 'control': 'untrained:mini'}
FITTED = dict(n=192, seed=0, size=154)   # textures that the readers are fitted on
SEEN,TESTED = 77,78  # seeds of the samples, and of the textures that the readers are scored on
SAMPLES = 'carpet','kilim','brick','terrazzo','pebbles','leaves','rust','tartan'
MOST = 9e6           # bytes of the networks of one encoder

def batch(textures): return torch.stack([to_tensor(t.image) for t in textures])

def fit(enc, pixels):
    "Both readers of an encoder's tokens"
    pieces = pixels.split(32)
    tokens = [enc.encode(piece) for piece in pieces]
    linear = LinearProbe.fit(zip(tokens, pieces))
    return dict(scaled=ScaledProbe.fit(lambda: zip(tokens, pieces), linear, reach=1), linear=linear)

def network(path):
    "The network in a file: one batch in, one out"
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda x: torch.cat([torch.from_numpy(session.run(None, {name: one[None].numpy()})[0]) for one in x])

def networks(out, encoders, readers_of):
    "Export and score; returns what the page says of each encoder"
    test = batch(sample_textures(8, TESTED, SIZE))
    about = {}
    for key,enc in encoders.items():
        readers = readers_of[key]
        export_onnx(None, out/f'{key}.onnx', SIZE, enc, half=True)
        for reader,probe in readers.items():
            export_onnx(probe, out/f'{key}-{reader}.onnx', None, half=True)
        files = {o: (out/f'{o}.onnx').stat().st_size for o in (key, *(f'{key}-{reader}' for reader in readers))}
        assert sum(files.values()) < MOST, f'{files}: too much to download'
        tokens = network(out/f'{key}.onnx')(test)
        exact = enc.encode(test)
        scores = {}
        for reader,probe in readers.items():
            halved = network(out/f'{key}-{reader}.onnx')(tokens)
            full,half = (average(image_metrics(pictures, test)) for pictures in (probe(exact), halved))
            scores[reader] = half['psnr']
            print(f"{key}, {reader} probe: {full['psnr']:.3f} dB in PyTorch, {half['psnr']:.3f} dB as the page runs it "
                  f'(half-precision weights), {len(test)} other textures')
            assert abs(full['psnr']-half['psnr']) < .05
        about[key] = dict(name=enc.name, weights=enc.weights, channels=enc.dim, files=files, scores=scores)
        print(f'{key}: {sum(files.values())/1e6:.1f} MB')
    return about

def samples(out):
    "Eight textures, larger than what is read, so that there is something to choose from; and small ones for the buttons"
    for name in SAMPLES:
        image = make_texture(name, 0, SEEN, 2*SIZE)
        image.save(out/f'{name}.webp', lossless=True, method=0) # slower methods save a tenth
        image.resize((96,96), Image.LANCZOS).save(out/f'{name}-small.webp', quality=85)

def still(out, enc, readers):
    "What stands there before anything is loaded: the first sample, and what PyTorch makes of it in full precision"
    image,edge = Image.open(out/f'{SAMPLES[0]}.webp'),SIZE//2
    target = image.crop((edge, edge, edge+SIZE, edge+SIZE)) # the centre
    x = to_tensor(target)[None]
    pictures = {reader: probe(enc.encode(x)).clamp(0,1) for reader,probe in readers.items()}
    target.save(out/'still-target.webp', lossless=True)
    scores = {}
    for reader,picture in pictures.items():
        to_image(picture[0]).save(out/f'still-{reader}.webp', lossless=True)
        row = image_metrics(picture, x)[0]
        scores[reader] = dict(psnr=row['psnr'], ssim=row['ssim'])
    return scores

def runtime(out):
    "The runtime's two files, from npm"
    with tempfile.TemporaryDirectory() as tmp:
        if not shutil.which('npm'): sys.exit('the page `try` takes its runtime from npm: install Node.js')
        subprocess.run(['npm', 'pack', '--silent', RUNTIME], cwd=tmp, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(tmp).glob('*.tgz'))) as tar:
            for name in RUNTIME_FILES: (out/name).write_bytes(tar.extractfile(f'package/dist/{name}').read())

def make(out):
    "All that does not change with the page's script"
    out.mkdir()
    pixels = batch(sample_textures(**FITTED))
    encoders = {key: load_encoder(name, device='cpu', amp=False) for key,name in ENCODERS.items()}
    readers = {key: fit(enc, pixels) for key,enc in encoders.items()}
    about = dict(encoders=networks(out, encoders, readers), size=SIZE, unit=14, samples=SAMPLES, fitted=FITTED, top=ERROR_TOP, runtime=RUNTIME)
    samples(out)
    about['still'] = still(out, encoders['mini'], readers['mini'])
    about['colours'] = [bytes(c).hex() for c in inferno(np.linspace(0, ERROR_TOP, 256))]
    runtime(out)
    about['wasm'] = (out/RUNTIME_FILES[1]).stat().st_size
    (out/'about.json').write_text(json.dumps(about))

def build(out):
    "The folder that the page takes everything from"
    out = Path(out)
    made_from = [Path(__file__), *(package/f'{name}.py' for name in ('decoder','export','features','models','textures')), package/'mini/model.safetensors']
    made = root/'build/try'/digest(b''.join(path.read_bytes() for path in made_from))[:12]
    start = time.monotonic()
    if not made.exists():
        with replacing(made) as new: make(new)
    shutil.copytree(made, out, dirs_exist_ok=True)
    for path in [*sources.iterdir(), package/'assets/stage.js', package/'assets/gallery.css']: shutil.copy(path, out)
    print(f'{out}: {sum(p.stat().st_size for p in out.iterdir())/1e6:.1f} MB, in {time.monotonic()-start:.0f} s')

if __name__=='__main__': build(sys.argv[1])
